"""`worker queues`, `workers`, `audit` and `health`: the system around the messages."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from worker.cli.exit_codes import DONE, FAILED
from worker.cli.options import AsJson, Limit, begin, open_server
from worker.cli.output import ago, local_time, print_json, print_table, print_text, print_texts, rough, tell_of_limit
from worker.cli.terminal import Row, Styled
from worker.ground.texts import counted
from worker.history import overview
from worker.history.answers import QueueInfo, WorkerInfo
from worker.history.lists_as_json import AuditLog, Queues, Workers
from worker.history.overview import audit_log
from worker.history.query import PAGE, ask
from worker.operations.health import PROBE_TIMEOUT, HealthAnswer, HealthState, check_health
from worker.server.connection import connect

HEALTH_STYLES = {HealthState.HEALTHY: "green", HealthState.DEGRADED: "yellow", HealthState.UNREACHABLE: "red"}


def queues(as_json: AsJson = False) -> None:
    """List the queues, with their waiting messages."""
    found = ask(open_server(), overview.queues())
    if as_json:
        print_json(Queues(found))
    else:
        print_table(QUEUE_HEADINGS, [queue_row(one) for one in found])


def workers(as_json: AsJson = False) -> None:
    """List the worker processes, with their attempts and their problems."""
    found = ask(open_server(), overview.workers())
    if as_json:
        print_json(Workers(found))
    else:
        print_table(WORKER_HEADINGS, [worker_row(one) for one in found])


def audit(limit: Limit = PAGE, as_json: AsJson = False) -> None:
    """List what people did, newest first."""
    found = ask(open_server(), audit_log(limit))
    if as_json:
        print_json(AuditLog(found))
        return
    rows = [(local_time(one.time), one.by, one.action, str(one.count), one.target) for one in found]
    print_table(("time", "by", "action", "messages", "target"), rows)
    tell_of_limit(len(found), limit)


def health(
    here: Annotated[bool, typer.Option("--here", help="Only look at the workers of this host.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check whether messages are being run; exit code 0: healthy, 1: degraded or unreachable."""
    settings = begin()
    client = connect(settings, timeout=PROBE_TIMEOUT)
    found = check_health(client, settings, host=socket.gethostname() if here else None)
    if as_json:
        print_json(HealthAnswer.of(found))
    else:
        print_texts(Styled(found.state, HEALTH_STYLES[found.state]), f"  {counted(found.workers, 'worker')} alive")
        for reason in found.reasons:
            print_text(reason)
    raise typer.Exit(DONE if found.state is HealthState.HEALTHY else FAILED)


QUEUE_HEADINGS = ("queue", "queued", "delayed", "running", "oldest waits", "paused")


def queue_row(queue: QueueInfo) -> Row:
    """A queue as the cells of a table."""
    pause = "" if queue.pause is None else f"by {queue.pause.by}, {ago(queue.pause.since)} ago"
    counts = [str(number) for number in (queue.queued, queue.delayed, queue.running)]
    return [queue.name, *counts, rough(queue.oldest_seconds), Styled(pause, "yellow")]


WORKER_HEADINGS = ("worker", "state", "for", "heard of", "queues", "threads", "loop", "ahead", "pool", "remarks")


_WORKER_STYLES = {"alive": "green", "stopped": "dim", "dead": "red"}


def worker_row(worker: WorkerInfo) -> Row:
    """A worker process as the cells of a table."""
    calls = worker.pool_waiting
    waiting = f", {calls} {'waits' if calls == 1 else 'wait'}" if calls else ""
    return [
        f"{worker.host}:{worker.pid}",
        Styled(worker.state, _WORKER_STYLES[worker.state]),
        _age(worker),
        f"{ago(worker.heartbeat)} ago",
        ", ".join(worker.queues),
        f"{worker.threads_busy}/{worker.threads}",
        f"{worker.on_loop}/{worker.concurrency}" if worker.concurrency else "",
        str(worker.ahead),
        f"{worker.pool_busy}/{worker.pool_size}{waiting}",
        Styled(_remarks(worker), "yellow"),
    ]


def _age(worker: WorkerInfo) -> str:
    """For how long it has run, or did run until it was last heard of."""
    if worker.started is None:
        return ""
    return ago(worker.started) if worker.alive else rough(worker.heartbeat - worker.started)


def _remarks(worker: WorkerInfo) -> str:
    blocked = [f"loop blocked for {rough(worker.loop_blocked_seconds)}"] if worker.loop_blocked_seconds else []
    counts = {
        ("coroutine", "overran"): worker.overruns,
        ("event", "dropped"): worker.events_dropped,
        ("end", "not stored yet"): worker.ends_waiting,
    }
    said = [f"{counted(number, what)} {how}" for (what, how), number in counts.items() if number]
    return "; ".join([*worker.errors, *blocked, *said])
