"""The application: `create_app()`, to run by itself (`worker web`) or to mount in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files

from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles

from worker.ground.version import __version__
from worker.loops.loop_resources import close_loop_resources
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import actions, api, pages, probes, sessions
from worker.web.parameters import only_known_parameters
from worker.web.problems import tell_problems
from worker.web.resources import Resources
from worker.web.security import Guard
from worker.web.watching import watch_this_loop


def create_app(settings: Settings | None = None) -> FastAPI:
    """Makes the application for these settings, which become the settings of this process.

    It opens no connection. At its start it loads the parts for which the first question to the search index would wait,
    and goes on without parts that fail. Mounted in another application, it works below any path, if that application
    starts and ends it: `web = create_app()`, `app = FastAPI(lifespan=web.router.lifespan_context)`,
    `app.mount("/worker", web)`.

    Args:
        settings: The settings, or None to read them from the environment and the project's `.env`.

    Raises:
        ConfigurationError: A setting is not valid.
    """
    if settings is None:
        settings = Settings.in_force()
    put_in_force(settings)
    Settings.read_all()
    resources = Resources(settings)
    app = FastAPI(
        title="worker",
        version=__version__,
        lifespan=_lifespan_of(resources),
        # FastAPI's own pages load scripts from other servers.
        docs_url=None,
        redoc_url=None,
    )
    app.state.resources = resources
    app.add_middleware(Guard, resources=resources)
    tell_problems(app)
    token = [Security(HTTPBearer(auto_error=False))] if resources.keys.needed else []
    app.include_router(api.router, prefix="/api", dependencies=[*token, Depends(only_known_parameters)])
    app.add_api_route("/messages", actions.enqueue, methods=["POST"], status_code=201, include_in_schema=False)
    if api.recall is not None:
        app.add_api_route("/recall", api.recall.ask, methods=["POST"], include_in_schema=False)
        app.add_api_route("/capture", api.recall.capture, methods=["POST"], status_code=202, include_in_schema=False)
    app.include_router(probes.router)
    app.include_router(probes.guarded, dependencies=token)
    app.include_router(sessions.router)
    app.mount("/static", StaticFiles(directory=str(files("worker.web") / "static")), name="static")
    app.include_router(pages.router)
    return app


def _lifespan_of(resources: Resources) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """The lifespan of the application, or of the one in which it is mounted."""

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        del app
        if api.recall is not None:
            await api.recall.get_ready(resources.settings)
        watching = asyncio.ensure_future(watch_this_loop(resources.blocked))
        try:
            yield
        finally:
            watching.cancel()
            resources.stop_following()
            await close_loop_resources()

    return lifespan
