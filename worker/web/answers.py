"""The answers of handlers: the same JSON that the command line prints with `--json`."""

from __future__ import annotations

from fastapi.responses import Response

from worker.ground.json_values import compact
from worker.history.as_json import Shown
from worker.web.security import Visitor


def told(answer: object) -> Response:
    """The answer as JSON; the handler's `response_model` describes it."""
    return Response(compact(answer), media_type="application/json")


def shown_to(visitor: Visitor) -> Shown:
    """The parts of messages that the visitor sees."""
    return Shown(arguments=visitor.shows_arguments, tracebacks=visitor.shows_arguments)
