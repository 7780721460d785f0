"""Guards the whole application: checks each request's visitor and body, and limits what browsers do with answers.

It refuses a request before any handler sees it. So every new handler is protected too.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.ground.logs import get_logger
from worker.web import guesses
from worker.web.direct import address_of, doubt_about, is_local_name, split
from worker.web.problems import BROKEN, problem
from worker.web.resources import Resources
from worker.web.tokens import Keys, Role, Session

logger = get_logger(__name__)

CSRF_HEADER = "x-csrf-token"

_PUBLIC = ("/health/live", "/health/ready")
_LOGIN = "/login"
_STATIC = "/static/"
_TAKE_FORMS = (_LOGIN, "/logout")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_ENVELOPE = 65_536
"""The most bytes of a request's body besides the message in it."""

_FORM = 16_384
"""The most bytes of a form: anybody may send one."""

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
        address: The visitor's address.
        session: The visitor's session, or None.
    """

    name: str
    may_act: bool
    shows_arguments: bool
    csrf_token: str
    address: str
    session: Session | None


class Refused(Exception):
    """The request is refused."""

    def __init__(self, code: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self.code = code
        self.detail = detail
        self.headers = headers
        super().__init__(detail)


class Guard:
    """The middleware: every request passes it first.

    Args:
        app: The guarded application.
        resources: The settings with the host names and the size of a message, and the keys that recognize visitors.
    """

    def __init__(self, app: ASGIApp, resources: Resources) -> None:
        self._app = app
        self._held = resources
        self._settings = settings = resources.settings
        self._keys = resources.keys
        self._hosts = {settings.web_host.lower(), *(one.lower() for one in settings.web_allowed_hosts)}
        self._most = 2 * settings.max_message_bytes + _ENVELOPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        answer = _Answer(send, kept=path.startswith(_STATIC))
        most = _FORM if path in _TAKE_FORMS else self._most
        try:
            visitor = await self._admit(request, path, most)
            scope.setdefault("state", {})["visitor"] = visitor
            await self._app(scope, _bounded(receive, most), answer)
        except ClientDisconnect:
            return  # nobody waits for an answer
        except Refused as refused:
            await _refusal(request, path, refused)(scope, receive, answer)
        except Exception:  # the request ends here, because only this code adds the headers to the answer
            if answer.has_begun:
                raise
            logger.exception("a request failed", path=path)
            await problem(500, BROKEN)(scope, receive, answer)

    async def _admit(self, request: Request, path: str, most: int) -> Visitor | None:
        if path in _PUBLIC:
            return None
        turnstile = await self._held.turnstile()
        await turnstile.wait()
        self._check_host(request.headers)
        if not self._keys.needed and (doubt := doubt_about(request)) is not None:
            raise Refused(
                403, f"without a token only direct requests of this machine are answered, and {doubt}: {_SET}"
            )
        role, session, by_token = await self._identify(request)
        if role is None and path != _LOGIN and not path.startswith(_STATIC):
            raise Refused(401, "a token is needed: send it as `Authorization: Bearer …`, or log in")
        if request.method in _SAFE:
            if not by_token:
                _check_reader(request.headers)
        else:
            if not by_token:
                self._check_forgery(request, session, path)
            _check_body(request.headers, most, path)
        return Visitor(
            name=self._name_of(request, role),
            may_act=role == "full",
            shows_arguments=self._settings.web_show_arguments,
            csrf_token=session.proof if session is not None else self._keys.proof if not self._keys.needed else "",
            address=address_in(request),
            session=session,
        )

    def _name_of(self, request: Request, role: Role | None) -> str:
        kind = "web" if not self._keys.needed else "nobody" if role is None else f"{role} token"
        return f"{kind}@{address_in(request)}"

    def _check_host(self, headers: Headers) -> None:
        """Refuses foreign host names, because another site may have pointed one of its own to this machine."""
        name = (split(f"//{headers.get('host', '')}").hostname or "") if _is_plain(headers.get("host", "")) else ""
        if is_local_name(name):
            return
        if not self._keys.needed:
            asked = name or "none"
            raise Refused(
                400, f"without a token only names of this machine are answered, and the host is {asked}: {_SET}"
            )
        if name not in self._hosts and address_of(name) is None:
            raise Refused(
                400, f"no such host here: {name or 'none'}; add it to WORKER_WEB_ALLOWED_HOSTS if it is yours"
            )

    async def _identify(self, request: Request) -> tuple[Role | None, Session | None, bool]:
        """The visitor's role, its session, and whether the request itself has a token."""
        if not self._keys.needed:
            return "full", None, False
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            role = await self._role_of(request, token.strip()) if scheme.lower() == "bearer" else None
            return role, None, role is not None
        session = self._keys.read_session(request.cookies.get(cookie_name(self._keys, request), ""))
        if session is None or await self._held.logged_out.has_ended(session):
            return None, None, False
        return session.role, session, False

    async def _role_of(self, request: Request, token: str) -> Role | None:
        """The role of a token in a header, or None, later, if it is not ours."""
        address = address_in(request)
        check_pace(self._held, address)
        role = self._keys.role_of(token.encode("latin-1"))
        if role is None and token:
            await self._held.guesses.failed(address, self._name_of(request, None), "a token in a header")
        return role

    def _check_forgery(self, request: Request, session: Session | None, path: str) -> None:
        """Refuses requests that another site makes a visitor's browser send."""
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if _is_of_another_site(headers):
            raise Refused(403, "another site made this request")
        if origin is not None and split(origin).netloc.lower() != headers.get("host", "").lower():
            raise Refused(403, f"another site made this request: {origin}")
        if path == _LOGIN:
            return
        # Without a session, only a browser can be tricked into a request, and a browser sends its origin.
        if session is not None or origin is not None or site is not None:
            expected = session.proof if session is not None else self._keys.proof
            if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), expected.encode()):
                raise Refused(403, "the header X-CSRF-Token is missing or old: load the page again")


_SET = "set WORKER_WEB_TOKEN to let others in, and name their host in WORKER_WEB_ALLOWED_HOSTS"


def address_in(request: Request) -> str:
    """The visitor's address."""
    return request.client.host if request.client is not None else "local"


def cookie_name(keys: Keys, request: Request) -> str:
    """The name of the cookie of the dashboard that is asked: each port and path of a host has its own."""
    host = split(f"//{request.headers.get('host', '')}").netloc
    port = host.rpartition("]")[2].rpartition(":")[2]
    return keys.cookie_of(port if port.isdecimal() else request.url.scheme, request.scope.get("root_path", ""))


def check_pace(held: Resources, address: str) -> None:
    """Refuses to read a token from an address that has too many wrong ones.

    Raises:
        Refused: It has; the answer says how long to wait.
    """
    if not held.guesses.may_try(address):
        wait = {"retry-after": str(int(guesses.LONGEST))}
        raise Refused(429, "too many wrong tokens come from this address: wait some seconds", wait)


def _is_of_another_site(headers: Headers) -> bool:
    return headers.get("sec-fetch-site") not in (None, "same-origin", "none")


def _check_reader(headers: Headers) -> None:
    """Refuses what the pages of another site ask for; a person may follow a link from there.

    They could not read the answers, but could hold all live tails open, or keep the server busy.
    """
    if _is_of_another_site(headers) and headers.get("sec-fetch-mode") != "navigate":
        raise Refused(403, "another site made this request")


def _check_body(headers: Headers, most: int, path: str) -> None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise Refused(413, f"the body is larger than {most} bytes")
    if path not in _TAKE_FORMS and (int(length) or "transfer-encoding" in headers):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "the body must be JSON, with `Content-Type: application/json`")


def _is_plain(host: str) -> bool:
    """Whether the text is only a name or an address, with or without a port."""
    bare = host.removeprefix("[").replace("]", "", 1)
    return all(character.isalnum() or character in "-._:" for character in bare)


def _refusal(request: Request, path: str, refused: Refused) -> Response:
    wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if refused.code == 401 and wants_page and not path.startswith("/api/"):  # noqa: PLR2004
        root = request.scope.get("root_path", "")
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{quote(root)}{_LOGIN}?next={quote(there, safe='/')}", 303)
    headers = {"www-authenticate": "Bearer"} if refused.code == 401 else refused.headers  # noqa: PLR2004
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
