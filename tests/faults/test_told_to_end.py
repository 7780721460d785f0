"""Worker processes that were told to end, and are gone before their attempts are."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.account import settle
from tests.support.scene import Scene, WorkerCommand, scene
from tests.support.waiting import wait_until
from worker.history.answers import StoredMessage
from worker.history.events import State
from worker.history.query import ask, one_message


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Scene]:
    """A scene where leases are short, shutdowns wait long, and one crash is too many."""
    with scene(tmp_path, WORKER_LEASE="1s", WORKER_MAX_CRASHES="1", WORKER_GRACE="60s") as opened:
        yield opened


def ctrl_c_twice(worker: WorkerCommand, opened: Scene) -> None:
    """As an impatient person does, until it is gone: the second one kills."""

    def is_gone_after_one_more() -> bool:
        worker.signal(signal.SIGINT)
        return "Killing worker process" in opened.log(worker.name)

    wait_until(is_gone_after_one_more, explain=opened.explain)


def killed_after_sigterm(worker: WorkerCommand, opened: Scene) -> None:
    """As a supervisor does that has waited long enough."""
    worker.terminate()
    wait_until(lambda: opened.client.scard("{worker}:ending") > 0, explain=opened.explain)
    worker.kill()


def crash(worker: WorkerCommand, opened: Scene) -> None:
    """As `kill -9` does."""
    worker.kill()


ENDS = [ctrl_c_twice, killed_after_sigterm]


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_was_told_to_end_never_counts_as_a_crash(
    quick: Scene, end: Callable[[WorkerCommand, Scene], None]
) -> None:
    """Its attempt was cancelled, and the message runs in the next process, where one crash makes a dead letter."""
    sent = quick.send_to_both("gated", [["gate"]])
    begin_and_end(quick, end)
    (quick.folder / "gate").touch()
    quick.start("last")
    quick.wait_for_end(2)
    assert settle(quick, sent) == {"completed": 2}
    for message_id in sent:
        assert [(event.state, event.text) for event in stored(quick, message_id).events] == [
            (State.STARTED, ""),
            (State.CANCELLED, "its worker was told to end"),
            (State.STARTED, ""),
            (State.COMPLETED, ""),
        ]
    assert not quick.client.exists("{worker}:ending")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (crash, (State.LOST, "its worker died; dead letter")),
        (ctrl_c_twice, (State.CANCELLED, "its worker was told to end; dead letter")),
    ],
)
def test_an_actor_that_runs_at_most_once_never_runs_again_after_its_worker_is_gone(
    quick: Scene, end: Callable[[WorkerCommand, Scene], None], told: tuple[State, str]
) -> None:
    """Its message is a dead letter, however its process ended, and what waited beside it runs."""
    sent = quick.send_to_both("once", [["gate"]])
    begin_and_end(quick, end)
    others = quick.send_to_both("once", [["gate"]])
    (quick.folder / "gate").touch()
    quick.start("last")
    quick.wait_for_end(4)
    assert settle(quick, [*sent, *others]) == {"dead": 2, "completed": 2}
    for message_id in sent:
        assert [(event.state, event.text) for event in stored(quick, message_id).events] == [(State.STARTED, ""), told]
    assert [run.worker for run in quick.ledger("began")] == ["first"] * 2 + ["last"] * 2


def begin_and_end(opened: Scene, end: Callable[[WorkerCommand, Scene], None]) -> None:
    """A process begins what waits, and is gone before it ends that."""
    worker = opened.start("first")
    wait_until(lambda: len(opened.ledger("began")) == 2 == opened.states()["running"], explain=opened.explain)
    end(worker, opened)
    wait_until(lambda: worker.process.poll() is not None, explain=opened.explain)


def stored(opened: Scene, message_id: str) -> StoredMessage:
    message = ask(opened.client, one_message(message_id))
    assert message is not None
    return message
