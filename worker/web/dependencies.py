"""The dependencies of handlers, by type: `async def page(history: History, visitor: Visiting) -> …`.

A page asks `await aask(history, …)`. It gives `visitor.csrf_token` to its scripts, as
`<meta name="csrf-token" content="{{ visitor.csrf_token }}">`, and they send it back with each action, in the header
`X-CSRF-Token`, together with `Content-Type: application/json`. It makes its links with
`request.url_for("name of the handler")`, and those to scripts and styles with `request.url_for("static", path="…")`: so
it also works below a path of another application.

Each dependency is a coroutine, though it waits for nothing: FastAPI would run a function in a thread, and the threads
of many requests keep the loop from running.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.web.resources import Resources
from worker.web.security import Visitor


async def resources(request: Request) -> Resources:
    """The application's resources."""
    found: Resources = request.app.state.resources
    return found


Held = Annotated[Resources, Depends(resources)]


async def client(held: Held) -> RedisClient:
    """The client for blocking calls in the thread pool."""
    return held.client


async def history(held: Held) -> AsyncRedisClient:
    """The client of the running loop, for `await aask(history, question)`."""
    return await held.redis()


async def visitor(request: Request) -> Visitor:
    """The visitor of the request."""
    found: Visitor = request.state.visitor
    return found


async def actor(who: Annotated[Visitor, Depends(visitor)]) -> Visitor:
    """The visitor of a request that acts.

    Raises:
        HTTPException: The visitor may only read.
    """
    if not who.may_act:
        raise HTTPException(403, "this token may read, and not act: use WORKER_WEB_TOKEN")
    return who


Client = Annotated[RedisClient, Depends(client)]
History = Annotated[AsyncRedisClient, Depends(history)]
Visiting = Annotated[Visitor, Depends(visitor)]
Acting = Annotated[Visitor, Depends(actor)]
