"""`worker demo`: a real recorded conversation, merged and summarized by real workers, event by event."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import as_file, files
from typing import Any

from worker import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import print_aside, print_event, print_json, print_text
from worker.cli.pools import RunningPools, end_in_order_when_told, pools_for, stop_timeout
from worker.conversations.describing import describe
from worker.conversations.importing import import_conversation
from worker.errors import WorkerError
from worker.ground.extras import is_installed
from worker.ground.texts import counted
from worker.history.as_json import Shown, events_of
from worker.history.events import State, StatusEvent
from worker.history.filters import EventFilter
from worker.history.states import FAILURES, WAITS
from worker.history.tail import Followed, follow_events, position
from worker.operations.actors import find_actor
from worker.operations.audit import ENQUEUE, audit
from worker.server.connection import check_server, connect
from worker.settings import Settings

TIMEOUT = 120.0
"""Seconds in which the messages must have ended."""


class DemoFailed(WorkerError):
    """A step of the demo failed."""


def demo(as_json: AsJson = False) -> None:
    """Merge and summarize the sample conversation, with every step in the history."""
    end_in_order_when_told()
    settings = begin().model_copy(update={"actors": ("worker.tasks",)})
    client = connect(settings)
    check_server(client, settings)
    say = print_aside if as_json else print_text
    conversation_id = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    with as_file(files("worker") / "sample") as folder:
        imported = run_async_in_new_loop(import_conversation(folder, conversation_id))
    say(f"conversation {conversation_id}: {counted(imported.chunks, 'chunk')} of a real recording")
    after = position(client)
    log = settings.data_dir / "demo.log"
    with RunningPools(pools_for(settings), settings.actors, stop_timeout(settings), log) as running:
        for name in ("merge_conversation", "summarize_conversation"):
            message = find_actor(settings, name).send(conversation_id)
            audit(client, ENQUEUE, name, [message.message_id])
        about_it = EventFilter(subject={"conversation_id": conversation_id})
        # The summary is indexed if the extra for the search index is installed.
        messages = 3 if is_installed("recall") else 2
        tail = follow_events(client, about_it, after=after)
        recorded = _watch(running, messages, tail, str(log), as_json=as_json)
    if any(event.state not in (State.STARTED, State.PROGRESS, State.COMPLETED, *WAITS) for event in recorded):
        raise DemoFailed(f"a step did not complete: see `worker events --subject conversation_id={conversation_id}`")
    _report(settings, run_async_in_new_loop(describe(conversation_id)), recorded, as_json=as_json)


def _watch(
    running: RunningPools, messages: int, tail: Iterator[Followed], log: str, *, as_json: bool
) -> list[StatusEvent]:
    """The events, printed as they come, until this many messages have ended."""
    recorded: list[StatusEvent] = []
    ended: set[str | None] = set()
    deadline = time.monotonic() + TIMEOUT
    for one in tail:
        event = one.event
        if event is not None:
            print_event(event, stderr=as_json)
            recorded.append(event)
            if event.state.is_final and event.state not in (*FAILURES, *WAITS):
                ended.add(event.message_id)
        if len(ended) == messages:
            return recorded
        if running.ended() is not None:
            raise DemoFailed(f"the workers ended by themselves: see {log}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"not done after {TIMEOUT:g} s: see {log}")
    return recorded


def _report(settings: Settings, found: dict[str, Any], events: list[StatusEvent], *, as_json: bool) -> None:
    merged = found["merged"]
    if merged is None or not found["summary"]:
        raise DemoFailed("there is no merged file, or no summary")
    if as_json:
        keys = ("path", "duration_seconds", "included", "dropped")
        print_json(
            {
                "conversation_id": found["conversation_id"],
                "merged": {key: merged[key] for key in keys},
                "summary": found["summary"],
                "events": events_of(events, Shown(tracebacks=True)),
            }
        )
        return
    print_text(f"\nmerged   {merged['path']}")
    print_text(f"         {merged['duration_seconds']:.1f} s, {counted(len(merged['included']), 'chunk')}")
    print_text(f"summary  {found['summary']}")
    if settings.redis_url is None:
        print_text(f"\n`worker events` shows the history, `worker down` stops the Valkey in {settings.data_dir}.")
