"""The route of a page: what cannot be shown is a page too, and never JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from worker.errors import ServerUnreachable
from worker.ground.texts import shown
from worker.web.asked import CURSOR
from worker.web.rendering import render

EVERY = 2
"""Seconds between two refreshes of a page."""

_FILTERED = ("/messages", "/live")
"""Pages with a filter, which refuse an unknown name themselves, beside the form."""

_PARAMETERS = {"/running": (CURSOR,), "/delayed": (CURSOR,), "/login": ("next", "failed")}
"""The names that other pages know in their URL."""


class PageRoute(APIRoute):
    """Shows a page, and not JSON, if the server does not answer, or if the URL has a name that the page does not know.

    Somebody has written that name to see less than everything.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, as FastAPI asks for it."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            if unknown := self._unknown_name(request):
                known = _PARAMETERS.get(self.path)
                there_are = f"there are {', '.join(known)}" if known else "there are none"
                detail = f"{shown(unknown)}: there is no such parameter of this page; {there_are}"
                visitor = request.state.visitor
                return render(request, visitor, "missing.html", code=422, detail=detail, counts={})
            try:
                return await handle(request)
            except ServerUnreachable as error:
                visitor = request.state.visitor
                return render(request, visitor, "problem.html", code=503, detail=str(error), counts={}, refresh=EVERY)

        return page

    def _unknown_name(self, request: Request) -> str | None:
        if self.path in _FILTERED:
            return None
        known = _PARAMETERS.get(self.path, ())
        return next((name for name in request.query_params if name not in known), None)
