"""Logging in and out: a visitor sends a token once, and gets a cookie that only this site gets back.

The page with the form is `GET /login`; its form posts `token` and `next` here.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from worker.ground.logs import get_logger
from worker.web.dependencies import Held, Visiting
from worker.web.problems import problem
from worker.web.security import check_pace, cookie_name
from worker.web.tokens import SESSION_SECONDS

logger = get_logger(__name__)

router = APIRouter(include_in_schema=False)


@router.post("/login", name="log_in")
async def log_in(request: Request, held: Held, visitor: Visiting) -> Response:
    """Gives a session for a token, sent by a form, which is redirected to `next`, or as JSON, `{"token": …}`."""
    check_pace(held, visitor.address)
    given = await _fields(request)
    is_form = "json" not in request.headers.get("content-type", "")
    token = given.get("token", "").encode("utf-8", "replace")
    role = held.keys.role_of(token)
    root = request.scope.get("root_path", "")
    there = _inside(root, given.get("next", ""))
    if role is None:
        logger.warning("a token was refused", by=visitor.name)
        if token:
            await held.guesses.failed(visitor.address, visitor.name, "the login page" if is_form else "POST /login")
        return _redirect(f"{root}/login?failed=1") if is_form else problem(401, "this is not the token")
    if visitor.session is not None:
        await held.logged_out.end(visitor.session)
    logger.info("a visitor has logged in", by=visitor.name, role=role)
    answer = _redirect(there) if is_form else Response(status_code=204)
    answer.set_cookie(
        cookie_name(held.keys, request),
        held.keys.new_session(role),
        max_age=SESSION_SECONDS,
        path=f"{root}/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout", name="log_out")
async def log_out(request: Request, held: Held, visitor: Visiting) -> Response:
    """Ends the session: its cookie is good for nothing any more, wherever else it is."""
    root = request.scope.get("root_path", "")
    if visitor.session is not None:
        await held.logged_out.end(visitor.session)
    answer = _redirect(f"{root}/login")
    answer.delete_cookie(cookie_name(held.keys, request), path=f"{root}/", httponly=True, samesite="strict")
    return answer


async def _fields(request: Request) -> dict[str, str]:
    """The fields of the body, a form or JSON; empty if it cannot be read."""
    body = await request.body()
    if "json" not in request.headers.get("content-type", ""):
        return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _inside(root: str, there: str) -> str:
    """The given path if it is in this application, or else its first page."""
    is_ours = there.startswith(f"{root}/") and not there.startswith("//") and there.isascii() and there.isprintable()
    return there if is_ours and "\\" not in there else f"{root}/"


def _redirect(there: str) -> Response:
    return RedirectResponse(there, 303)
