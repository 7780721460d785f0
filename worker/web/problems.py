"""Errors as JSON: `{"error": …, "detail": …}`, one line, and never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import redis
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from worker.errors import ConfigurationError, MessageRefused, ServerUnreachable, WorkerError
from worker.ground.logs import get_logger
from worker.server.troubles import trouble

logger = get_logger(__name__)

BROKEN = "an error here: see the log of the web process"

_LONGEST = 1_000


class Problem(BaseModel):
    """An error."""

    error: str = Field(description="The kind of the error, a word for programs.")
    detail: str = Field(description="One line for people.")


# The errors that any request may have.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": description}
    for code, description in {
        400: "The request cannot be read, or its `Host` is not ours.",
        401: "A token is needed.",
        403: "The token may only read, another site made the request, or a proxy passed it on without a token.",
        422: "A value of the request cannot be used.",
        429: "Too many wrong tokens came from this address.",
        503: "The message server does not answer.",
    }.items()
}
WITH_BODY: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "The body is too large."},
    415: {"model": Problem, "description": "The body's type is not `application/json`."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "It does not exist."}}

_CODES: dict[type[WorkerError], int] = {ConfigurationError: 422, MessageRefused: 422, ServerUnreachable: 503}


def problem(code: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer for an error."""
    kind = HTTPStatus(code).phrase.lower().replace(" ", "_").replace("-", "_")
    said = " ".join(detail.split())[:_LONGEST].encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"error": kind, "detail": said}, code, headers)


def tell_problems(app: FastAPI) -> None:
    """Makes the application answer errors in this form."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(WorkerError, _of_ours)
    app.add_exception_handler(redis.RedisError, _of_the_server)
    app.add_exception_handler(Exception, _of_anything)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = _allowed(request, headers.get("allow", ""))
    return problem(error.status_code, str(error.detail), headers)


def _allowed(request: Request, known: str) -> str:
    """All methods of a path; the router names only the methods of the first route with this path."""
    app: FastAPI = request.app
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    described = [methods for one, methods in app.openapi()["paths"].items() if compile_path(one)[0].match(path)]
    found = {method.upper() for methods in described for method in methods} | set(known.split(", "))
    return ", ".join(sorted(found - {""}))


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    return problem(422, "; ".join(map(_said, error.errors())))


def _said(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {str(error['msg']).removeprefix('Value error, ')}"


async def _of_ours(request: Request, error: Exception) -> JSONResponse:
    del request
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), 500)
    return problem(code, str(error) or type(error).__name__)


async def _of_the_server(request: Request, error: Exception) -> JSONResponse:
    del request
    return problem(503, str(trouble(error)))


async def _of_anything(request: Request, error: Exception) -> JSONResponse:
    """Logs an error that ends an answer after its begin; the guard answers earlier errors."""
    logger.error("a request failed", path=request.url.path, exc_info=error)
    return problem(500, BROKEN)
