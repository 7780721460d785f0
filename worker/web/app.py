"""The application: `create_app()`, to run by itself (`worker web`) or to mount in another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from worker.bridge import close_loop_resources
from worker.settings import Settings, put_in_force, settings_in_force
from worker.version import __version__
from worker.web import api, pages, sessions
from worker.web.problems import tell_problems
from worker.web.resources import Resources
from worker.web.security import Guard


def create_app(settings: Settings | None = None) -> FastAPI:
    """Makes the application for these settings, which become the settings of this process.

    Connects to nothing before the first request. Mounted in another application, it works below any path:
    `app.mount("/worker", create_app())`.

    Args:
        settings: `None`: read from the environment and the project's `.env`.

    Raises:
        ConfigurationError: A setting is bad.
    """
    if settings is None:
        settings = settings_in_force()
    put_in_force(settings)
    resources = Resources(settings)
    app = FastAPI(
        title="worker",
        version=__version__,
        lifespan=_lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.resources = resources
    app.add_middleware(Guard, settings=settings, keys=resources.keys)
    tell_problems(app)
    app.include_router(api.router, prefix="/api")
    app.include_router(sessions.router)
    app.mount("/static", StaticFiles(directory=str(files("worker.web") / "static")), name="static")
    app.include_router(pages.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    del app
    yield
    await close_loop_resources()
