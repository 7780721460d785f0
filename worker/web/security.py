"""Guards the whole application: checks each request's visitor and body, and limits what browsers do with answers.

It refuses a request before any handler sees it. So every new handler is protected too.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.ground.logs import get_logger
from worker.settings import Settings
from worker.web.problems import BROKEN, problem
from worker.web.tokens import Keys, Role, Session

logger = get_logger(__name__)

COOKIE = "worker_session"
CSRF_HEADER = "x-csrf-token"

_PUBLIC = ("/health/live", "/health/ready")
_LOGIN = "/login"
_STATIC = "/static/"
_TAKE_FORMS = (_LOGIN, "/logout")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_ENVELOPE = 65_536
"""The most bytes of a request's body besides the message in it."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer, with which browsers send the origin "null" for a form.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """The visitor of a request.

    Attributes:
        name: The visitor's name in the audit log: the kind of access, and the address.
        may_act: Whether the visitor may change anything.
        shows_arguments: Whether arguments of messages and tracebacks are shown.
        csrf_token: The token that the visitor's pages send with each action, in the header `X-CSRF-Token`.
    """

    name: str
    may_act: bool
    shows_arguments: bool
    csrf_token: str


class Refused(Exception):
    """The request is refused."""

    def __init__(self, code: int, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class Guard:
    """The middleware: every request passes it first.

    Args:
        app: The guarded application.
        settings: The settings with the host names and the size of a message.
        keys: The keys that recognize visitors.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._hosts = {"localhost", settings.web_host.lower(), *(one.lower() for one in settings.web_allowed_hosts)}
        self._most = 2 * settings.max_message_bytes + _ENVELOPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        answer = _Answer(send, kept=path.startswith(_STATIC))
        try:
            visitor = self._admit(request, path)
            scope.setdefault("state", {})["visitor"] = visitor
            await self._app(scope, _bounded(receive, self._most), answer)
        except Refused as refused:
            await _refusal(request, path, refused)(scope, receive, answer)
        except Exception:  # the request ends here, because only this code adds the headers to the answer
            if answer.has_begun:
                raise
            logger.exception("a request failed", path=path)
            await problem(500, BROKEN)(scope, receive, answer)

    def _admit(self, request: Request, path: str) -> Visitor | None:
        if path in _PUBLIC:
            return None
        self._check_host(request.headers)
        if not self._keys.needed:
            _check_local(request)
        role, session, by_token = self._identify(request)
        if role is None and path != _LOGIN and not path.startswith(_STATIC):
            raise Refused(401, "a token is needed: send it as `Authorization: Bearer …`, or log in")
        if request.method not in _SAFE:
            if not by_token:
                self._check_forgery(request, session, path)
            _check_body(request.headers, self._most, path)
        kind = "web" if not self._keys.needed else f"{role} token"
        address = request.client.host if request.client is not None else "local"
        return Visitor(
            name=f"{kind}@{address}",
            may_act=role == "full",
            shows_arguments=self._settings.web_show_arguments,
            csrf_token=session.proof if session is not None else self._keys.proof if not self._keys.needed else "",
        )

    def _check_host(self, headers: Headers) -> None:
        """Refuses foreign host names, because another site may have pointed one of its own to this machine."""
        name = (_split(f"//{headers.get('host', '')}").hostname or "") if _is_plain(headers.get("host", "")) else ""
        if name in self._hosts or _is_address(name, loopback=not self._keys.needed):
            return
        raise Refused(400, f"no such host here: {name or 'none'}; add it to WORKER_WEB_ALLOWED_HOSTS if it is yours")

    def _identify(self, request: Request) -> tuple[Role | None, Session | None, bool]:
        """The visitor's role, its session, and whether the request itself has a token."""
        if not self._keys.needed:
            return "full", None, False
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            role = self._keys.role_of(token.strip().encode("latin-1")) if scheme.lower() == "bearer" else None
            return role, None, role is not None
        session = self._keys.read_session(request.cookies.get(COOKIE, ""))
        return (session.role if session is not None else None), session, False

    def _check_forgery(self, request: Request, session: Session | None, path: str) -> None:
        """Refuses requests that another site makes a visitor's browser send."""
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            raise Refused(403, "another site made this request")
        if origin is not None and _split(origin).netloc.lower() != headers.get("host", "").lower():
            raise Refused(403, f"another site made this request: {origin}")
        if path == _LOGIN:
            return
        # Without a session, only a browser can be tricked into a request, and a browser sends its origin.
        if session is not None or origin is not None or site is not None:
            expected = session.proof if session is not None else self._keys.proof
            if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), expected.encode()):
                raise Refused(403, "the header X-CSRF-Token is missing or old: load the page again")


def _check_local(request: Request) -> None:
    """Refuses requests from other machines, and through a proxy; for applications without a token."""
    address = request.client.host if request.client is not None else ""
    forwarded = next((name for name in _FORWARDED if name in request.headers), None)
    if (address and not _is_address(address, loopback=True)) or forwarded:
        raise Refused(403, "only for this machine: set WORKER_WEB_TOKEN to let others in")


def _check_body(headers: Headers, most: int, path: str) -> None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise Refused(413, f"the body is larger than {most} bytes")
    if path not in _TAKE_FORMS and (int(length) or "transfer-encoding" in headers):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "the body must be JSON, with `Content-Type: application/json`")


def _split(url: str) -> SplitResult:
    """The URL's parts; all empty if it is not a URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_plain(host: str) -> bool:
    """Whether the text is only a name or an address, with or without a port."""
    bare = host.removeprefix("[").replace("]", "", 1)
    return all(character.isalnum() or character in "-._:" for character in bare)


def _is_address(name: str, *, loopback: bool) -> bool:
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        return False
    return found.is_loopback or not loopback


def _refusal(request: Request, path: str, refused: Refused) -> Response:
    wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if refused.code == 401 and wants_page and not path.startswith("/api/"):  # noqa: PLR2004
        root = request.scope.get("root_path", "")
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{quote(root)}{_LOGIN}?next={quote(there, safe='/')}", 303)
    headers = {"www-authenticate": "Bearer"} if refused.code == 401 else None  # noqa: PLR2004
    return problem(refused.code, refused.detail, headers)


class _Answer:
    """Sends an answer on, with the headers of every answer."""

    def __init__(self, send: Send, *, kept: bool) -> None:
        self._send = send
        self._cache_control = "no-cache" if kept else "no-store"
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", self._cache_control)
        await self._send(message)


def _bounded(receive: Receive, most: int) -> Receive:
    """Receives a body of unknown length, up to the limit."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"the body is larger than {most} bytes")
        return message

    return bounded
