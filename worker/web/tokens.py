"""Recognizes visitors: compares tokens in constant time, signs sessions with an end, and proofs against forgery.

A session holds no token, and is not stored: it holds its role and its end, under a signature made with the tokens and
the namespace. Another token ends all sessions.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from worker.settings import Settings

SESSION_SECONDS = 12 * 3600

COOKIE = "worker_session"
"""The beginning of the name of every dashboard's cookie."""

Role = Literal["full", "read"]


@dataclass(frozen=True, slots=True)
class Session:
    """The content of a session cookie.

    Attributes:
        id: The session's id.
        role: The role of the visitor.
        until: The second in which it ends, since 1970.
        proof: The proof that its changing requests must have, so that no other site can make them.
    """

    id: str
    role: Role
    until: int
    proof: str


class Keys:
    """The secrets of an application, and the sessions and proofs made with them.

    Args:
        settings: The settings with the tokens, if there are any.
    """

    def __init__(self, settings: Settings) -> None:
        self._tokens: list[tuple[Role, bytes]] = []
        for role, token in (("full", settings.web_token), ("read", settings.web_read_token)):
            if token is not None:
                self._tokens.append((role, _bytes_of(token)))  # type: ignore[arg-type]
        both = b"\0".join(token for _, token in self._tokens)
        about = f"worker web\0{settings.namespace}".encode()
        self._key = hmac.digest(both, about, "sha256") if both else secrets.token_bytes()

    @property
    def needed(self) -> bool:
        """Whether visitors need a token."""
        return bool(self._tokens)

    def role_of(self, token: bytes) -> Role | None:
        """The role of a token, or None if it is not ours."""
        found: Role | None = None
        # All are compared, in constant time, so that the time reveals nothing.
        for role, known in self._tokens:
            if hmac.compare_digest(_digest(known), _digest(token)):
                found = role
        return found

    def new_session(self, role: Role) -> str:
        """The cookie of a session that begins now."""
        said = f"{role}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{said}.{self._sign('session', said)}"

    def read_session(self, cookie: str) -> Session | None:
        """The session of a cookie, or None if it is not ours, or has ended."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", said).encode(), signature.encode()):
            return None
        role, until, own_id = said.split(".")
        if int(until) < time.time():
            return None
        return Session(own_id, "full" if role == "full" else "read", int(until), self._sign("proof", said))

    def cookie_of(self, port: str, root: str) -> str:
        """The name of the cookie of the dashboard at a port, below a path: browsers send it to all of a host's."""
        return f"{COOKIE}_{self._sign('cookie', f'{port}{root}')[:12]}"

    @property
    def proof(self) -> str:
        """The proof that changing requests must have if no session is needed."""
        return self._sign("proof", "")

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}\0{text}".encode("utf-8", "replace"), "sha256").hex()


def _bytes_of(token: SecretStr) -> bytes:
    return token.get_secret_value().encode("utf-8", "surrogateescape")


def _digest(text: bytes) -> bytes:
    # The result has one length for tokens of any length.
    return hmac.digest(b"token", text, "sha256")
