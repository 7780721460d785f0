"""A worker that is told to end while its attempts take longer than it has time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.support.account import settle
from tests.support.scene import Scene, scene
from tests.support.waiting import wait_until
from worker.history.events import State
from worker.history.query import ask, one_message
from worker.server.keys import PRIORITIES

GRACE = 8
CLEANUP = 2


def test_a_shutdown_gives_back_at_once_what_has_not_begun_and_cancels_what_takes_too_long(
    tmp_path: Path, runner: str
) -> None:
    """On SIGTERM, prefetched messages run elsewhere first; long attempts clean up, go back, and keep their retries."""
    with scene(tmp_path, runner, WORKER_GRACE=f"{GRACE}s", WORKER_CLEANUP_TIMEOUT=f"{CLEANUP}s") as opened:
        # What is prefetched follows from how quick attempts were: the quick ones come first.
        messages = [opened.message("work", 0) for _ in range(300)]
        messages += [opened.message("long", then) for then in ("completes", "completes", "fails", "fails")]
        messages += [opened.message("work", 0) for _ in range(300)]
        sent = [message.message_id for message in opened.broker.enqueue_many(messages)]
        first = opened.start_ready("first")
        wait_until(lambda: opened.states()["running"] == 4 and opened.ended() == 300, explain=opened.explain)
        assert taken(opened) - set(sent[300:304]), "nothing was prefetched"
        first.terminate()
        told_at = time.monotonic()
        wait_until(lambda: taken(opened) == set(sent[300:304]), explain=opened.explain)
        assert not opened.ledger("cleaned"), "it was not given back before the grace was over"
        given_back = waiting_again(opened)
        assert given_back
        opened.start("second", threads=1)
        # Dramatiq looks once a second: whether to begin, whether its consumers have ended, whether its log has.
        wait_until(lambda: first.process.poll() is not None, explain=opened.explain)
        assert time.monotonic() - told_at > GRACE
        assert first.process.returncode == 0
        opened.wait_for_end(604)
        assert settle(opened, sent) == {"completed": 602, "dead": 2}
        second = [run.message_id for run in opened.ledger("began") if run.worker == "second"]
        assert set(second[: len(given_back)]) == given_back
        assert sorted(run.message_id for run in opened.ledger("cleaned")) == sorted(sent[300:304])
        completes, fails = _story(opened, sent[300]), _story(opened, sent[302])
        cancelled = [(1, State.STARTED, ""), (1, State.CANCELLED, "shutdown")]
        assert completes == [*cancelled, (2, State.STARTED, ""), (2, State.COMPLETED, "")]
        assert [(attempt, state) for attempt, state, _ in fails[2:]] == [
            (2, State.STARTED),
            (2, State.FAILED),
            (3, State.STARTED),
            (3, State.FAILED),
        ], "the one retry that it has is not spent by the shutdown"
        wait_until(lambda: opened.client.zcard("{worker}:leases") == 1)


def test_a_shutdown_while_the_server_is_away_ends_too_and_loses_nothing(tmp_path: Path) -> None:
    """Ends that cannot be stored before the process must end are as if they had not been: their messages run again."""
    with scene(tmp_path, WORKER_LEASE="2s", WORKER_GRACE="1s") as opened:
        first = opened.start_ready("first")
        sent = opened.send_to_both("gated", [["gate"]] * 10)
        wait_until(lambda: opened.states()["running"] == 8)
        opened.server.kill()
        (opened.folder / "gate").touch()
        wait_until(lambda: first.tells()["health"]["ends_waiting"] >= 8)
        first.terminate()
        told_at = time.monotonic()
        wait_until(lambda: first.process.poll() is not None, explain=opened.explain)
        assert first.process.returncode == 0
        assert time.monotonic() - told_at < 30
        opened.server.start()
        opened.start("second")
        opened.wait_for_end(20)
        assert settle(opened, sent) == {"completed": 20}


def taken(opened: Scene) -> set[str]:
    """The messages that workers have taken and not given back."""
    found: set[str] = set()
    for stream in (f"{{worker}}:q:default:{priority}:{opened.runner}" for priority in PRIORITIES):
        pending: Any = opened.client.xpending_range(stream, "workers", "-", "+", 1_000)
        for one in pending:
            entries: Any = opened.client.xrange(stream, one["message_id"], one["message_id"])
            found |= {fields[b"i"].decode() for _, fields in entries}
    return found


def waiting_again(opened: Scene) -> set[str]:
    """The messages that workers have given back, also before they were told to end, and that nobody has yet."""
    entries: Any = opened.client.xrange(f"{{worker}}:q:default:back:{opened.runner}")
    return {fields[b"i"].decode() for _, fields in entries} - taken(opened)


def _story(opened: Scene, message_id: str) -> list[tuple[int | None, State, str]]:
    message = ask(opened.client, one_message(message_id))
    assert message is not None
    return [(event.attempt, event.state, event.text) for event in message.events]
