"""Probes for machines: the liveness and the readiness of the process, the health of the system, and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from worker.loops.thread_pool import run_in_thread_pool
from worker.operations.health import HealthAnswer, HealthState, check_health
from worker.web import shapes
from worker.web.answers import told
from worker.web.dependencies import Held
from worker.web.problems import PROBLEMS

router = APIRouter(tags=["probes"])
guarded = APIRouter(tags=["probes"])


class Alive(shapes.Shape):
    """The process answers."""

    alive: bool


class Ready(shapes.Shape):
    """The health in one word; `GET /api/health` gives the reasons."""

    state: HealthState


@router.get("/health/live")
async def live() -> Alive:
    """This process answers; it asks no server."""
    return Alive(alive=True)


@router.get("/health/ready", responses={503: {"model": Ready, "description": "The message server does not answer."}})
async def ready(held: Held, response: Response) -> Ready:
    """Whether this process can answer questions: the message server answers."""
    health = await run_in_thread_pool(check_health, held.probing, held.settings)
    if health.state is HealthState.UNREACHABLE:
        response.status_code = 503
    return Ready(state=health.state)


@guarded.get("/api/health", response_model=HealthAnswer, responses=PROBLEMS)
async def health(held: Held) -> Response:
    """Whether messages are being run, and if not, the reasons."""
    return told(HealthAnswer.of(await run_in_thread_pool(check_health, held.probing, held.settings)))


@guarded.get("/metrics", response_class=PlainTextResponse, responses=PROBLEMS)
async def metrics(request: Request, held: Held) -> Response:
    """The metrics for Prometheus."""
    text, media_type = await held.metrics.expose(request.headers.get("accept", ""))
    return Response(text, media_type=media_type)
