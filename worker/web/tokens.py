"""Who a visitor is: tokens compared in constant time, sessions that are signed and end, proofs against forgery.

A session holds no token and is kept nowhere: it says what it allows and until when, under a signature that only who
knows the token can make. Another token ends all sessions.
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

Role = Literal["full", "read"]


@dataclass(frozen=True, slots=True)
class Session:
    """What a session cookie says.

    Attributes:
        role: What it allows.
        proof: What its requests that change something must bear, so that no other site can make them.
    """

    role: Role
    proof: str


class Keys:
    """The secrets of an application, and what they vouch for.

    Args:
        settings: With the tokens, if there are any.
    """

    def __init__(self, settings: Settings) -> None:
        self._tokens: list[tuple[Role, bytes]] = []
        for role, token in (("full", settings.web_token), ("read", settings.web_read_token)):
            if token is not None:
                self._tokens.append((role, _bytes_of(token)))  # type: ignore[arg-type]
        both = b"\0".join(token for _, token in self._tokens)
        self._key = hmac.digest(both, b"worker web", "sha256") if both else secrets.token_bytes()

    @property
    def needed(self) -> bool:
        """Whether there are tokens, without which nothing is shown."""
        return bool(self._tokens)

    def role_of(self, token: bytes) -> Role | None:
        """What a token allows; `None`: it is none of ours."""
        found: Role | None = None
        # All are compared, in constant time: how long it takes tells nothing.
        for role, known in self._tokens:
            if hmac.compare_digest(_digest(known), _digest(token)):
                found = role
        return found

    def new_session(self, role: Role) -> str:
        """A session that begins now, as its cookie says it."""
        said = f"{role}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{said}.{self._sign('session', said)}"

    def read_session(self, cookie: str) -> Session | None:
        """What a cookie says; `None`: it is not ours, or is over."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", said).encode(), signature.encode()):
            return None
        role, until, _ = said.split(".")
        if int(until) < time.time():
            return None
        return Session("full" if role == "full" else "read", self._sign("proof", said))

    @property
    def proof(self) -> str:
        """What requests that change something must bear where no session is needed."""
        return self._sign("proof", "")

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}\0{text}".encode("utf-8", "replace"), "sha256").hex()


def _bytes_of(token: SecretStr) -> bytes:
    return token.get_secret_value().encode("utf-8", "surrogateescape")


def _digest(text: bytes) -> bytes:
    # Of one length, whatever the length of the token.
    return hmac.digest(b"token", text, "sha256")
