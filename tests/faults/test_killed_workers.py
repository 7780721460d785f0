"""Worker processes that are killed, suspended, or taken down by their own messages."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import dramatiq
import pytest

from tests.support.account import settle
from tests.support.runners import named
from tests.support.scene import Scene, WorkerCommand, scene
from tests.support.waiting import wait_until
from worker.history.events import State
from worker.history.overview import actor_rates
from worker.history.query import ask, one_message
from worker.operations.actions import cancel

MESSAGES = 1_000
KILLS = 20
LEASE = 4


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose leases are short; messages never become dead letters for their workers' deaths."""
    with scene(tmp_path, WORKER_LEASE="1s", WORKER_MAX_CRASHES="100") as opened:
        yield opened


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[Scene]:
    """A scene with the leases that are the default."""
    with scene(tmp_path) as opened:
        yield opened


def test_twenty_kills_in_the_middle_of_a_thousand_messages_lose_none(quick: Scene) -> None:
    """A worker is killed and restarted twenty times while it works off 1,000 messages: each one completes."""
    sent = quick.send_to_both("work", [[10]] * (MESSAGES // 2))
    for kill in range(KILLS):
        before = len(quick.ledger("done"))
        worker = quick.start(f"victim-{kill}")
        wait_until(partial(_has_done, quick, before + 10), explain=quick.explain)
        worker.kill()
    assert quick.ended() < MESSAGES
    quick.start("last")
    quick.wait_for_end(MESSAGES)
    assert settle(quick, sent) == {"completed": MESSAGES}
    wait_until(lambda: quick.client.zcard("{worker}:leases") == 1)
    assert quick.client.hgetall("{worker}:workers").keys() == {_only_lease(quick)}


def test_what_a_killed_process_ran_and_held_runs_elsewhere_within_fifteen_seconds(usual: Scene) -> None:
    """At the default lease, a killed process's messages run elsewhere within 15 s, with a LOST event each."""
    victim = usual.start_ready("victim")
    # What is prefetched follows from how quick attempts were: the quick ones come first.
    sent = usual.send_to_both("work", [[]] * 500)
    gated = usual.send_to_both("gated", [["gate"]] * 4)
    sent += [*gated, *usual.send_to_both("work", [[]] * 500)]
    sent_at = time.monotonic()
    wait_until(lambda: usual.states()["running"] == 8 and usual.ended() == 1_000, explain=usual.explain)
    work_off = time.monotonic() - sent_at
    assert usual.pending() > 8, "nothing was prefetched"
    usual.start_ready("other")
    wait_until(lambda: usual.ended() + usual.pending() == 2_008)
    victim.kill()
    (usual.folder / "gate").touch()
    killed_at = time.monotonic()
    usual.wait_for_end(2_008)
    late = [run for run in usual.ledger("done") if run.at > killed_at]
    assert all(run.worker == "other" and run.at - killed_at < 15 + work_off for run in late)
    assert settle(usual, sent) == {"completed": 2_008}
    for message_id in gated:
        message = ask(usual.client, one_message(message_id))
        assert message is not None
        states = [event.state for event in message.events]
        assert states == [State.STARTED, State.LOST, State.STARTED, State.COMPLETED]


def test_what_waits_for_the_lease_of_a_dead_worker_does_not_fail_and_gets_it_in_the_end(
    tmp_path: Path, runner: str
) -> None:
    """Its attempts are SNOOZED, although it has no retry to spend, and the dead worker's message runs again."""
    with scene(tmp_path, runner, WORKER_LEASE="1s") as opened:
        victim = opened.start_ready("victim", threads=1)
        holder = opened.send("exclusive", "gate")
        wait_until(lambda: len(opened.ledger("began")) == 1, explain=opened.explain)
        opened.start_ready("other")
        waiting = opened.send("exclusive", "gate")
        wait_until(lambda: opened.states()["delayed"] == 1, explain=opened.explain)
        victim.kill()
        (opened.folder / "gate").touch()
        opened.wait_for_end(2)
        assert settle(opened, [holder, waiting]) == {"completed": 2}
        held, waited = (ask(opened.client, one_message(one)) for one in (holder, waiting))
        assert held is not None
        assert waited is not None
        assert State.LOST in [event.state for event in held.events]
        ends = [event.state for event in waited.events if event.state.is_final]
        assert ends == [*[State.SNOOZED] * (len(ends) - 1), State.COMPLETED]
        assert len(ends) > 1
        of_actors = {one.actor: one for one in ask(opened.client, actor_rates(timedelta(hours=1)))}
        rates = of_actors[named("exclusive", runner)]
        assert rates.ended["snoozed"] == len(ends) - 1
        assert rates.ended["failed"] == 0


def test_a_suspended_process_records_nothing_of_what_has_gone_to_others(tmp_path: Path) -> None:
    """A process that stands still for two leases ends what it ran and drops what it held: neither counts."""
    with scene(tmp_path, WORKER_LEASE=f"{LEASE}s") as opened:
        suspended = opened.start_ready("suspended")
        # What is prefetched follows from how quick attempts were.
        quick = opened.send_to_both("work", [[0]] * 100)
        opened.wait_for_end(200)
        sent = opened.send_to_both("gated", [["gate"]] * 10)
        wait_until(lambda: len(opened.ledger("began")) == 208 and opened.states()["running"] == 8)
        suspended.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        other = opened.start_ready("other", threads=20)
        wait_until(
            lambda: len([run for run in opened.ledger("began") if run.worker == "other"]) == 20, explain=opened.explain
        )
        (opened.folder / "gate").touch()
        opened.wait_for_end(220)
        before = {message_id: opened.client.get(f"{{worker}}:m:{message_id}") for message_id in sent}
        wait_until(lambda: time.monotonic() - stopped_at > 2 * LEASE)
        suspended.signal(signal.SIGCONT)
        # It ends the eight attempts, drops the rest, and is a worker again under a new lease.
        wait_until(lambda: suspended.tells()["health"]["ends_refused"] == 8, explain=opened.explain)
        wait_until(suspended.is_ready, explain=opened.explain)
        late: list[str] = []

        def works_again() -> bool:
            late.extend(opened.send_to_both("work", [[50]] * 20))
            again = [run for run in opened.ledger("began") if run.worker == "suspended" and run.message_id in late]
            # Those for the loop and for threads take turns.
            return {late.index(run.message_id) % 2 for run in again} == {0, 1}

        wait_until(works_again, explain=opened.explain)
        opened.wait_for_end(220 + len(late))
        assert not [run for run in opened.ledger("began")[208:] if run.worker == "suspended" and run.message_id in sent]
        assert {message_id: opened.client.get(f"{{worker}}:m:{message_id}") for message_id in sent} == before
        assert settle(opened, [*quick, *sent, *late]) == {"completed": 220 + len(late)}
        assert not other.tells()["errors"]


def test_a_member_of_a_group_counts_once_although_two_processes_have_run_it(quick: Scene, runner: str) -> None:
    """The one that has lost it counts nothing: the callback comes when all members have ended, and not before."""
    quick.runner = runner
    members = [quick.message("gated", gate) for gate in "abc"]
    callback = quick.message("work")
    group = dramatiq.group(members, broker=quick.broker)
    group.add_completion_callback(callback)
    group.run()
    suspended = quick.start("suspended", threads=1)
    wait_until(lambda: quick.ledger("began") and quick.states()["running"] == 1, explain=quick.explain)
    suspended.signal(signal.SIGSTOP)
    quick.start("other")
    wait_until(lambda: len(quick.ledger("began")) == 4, explain=quick.explain)
    (quick.folder / "a").touch()
    wait_until(lambda: quick.ended() == 1, explain=quick.explain)
    suspended.signal(signal.SIGCONT)
    wait_until(lambda: suspended.tells()["health"]["ends_refused"] == 1, explain=quick.explain)
    (quick.folder / "b").touch()
    wait_until(lambda: quick.ended() == 2, explain=quick.explain)
    assert ask(quick.client, one_message(callback.message_id)) is None
    (quick.folder / "c").touch()
    quick.wait_for_end(4)
    assert settle(quick, [one.message_id for one in [*members, callback]]) == {"completed": 4}


def test_a_message_that_kills_its_process_twice_is_a_dead_letter(tmp_path: Path, runner: str) -> None:
    """Its second start is its last, whichever process had it, and the messages beside it complete."""
    with scene(tmp_path, runner, WORKER_LEASE="1s") as opened:
        before = opened.send_to_both("work", [[5]] * 25)
        poison = opened.send("kills")
        after = opened.send_to_both("work", [[5]] * 25)
        starts = 0
        while opened.ended() < 101:
            # As a supervisor would.
            starts += 1
            worker = opened.start(str(starts))
            wait_until(partial(_ends_or_all_end, worker, opened, 101), explain=opened.explain)
        assert starts == 3
        opened.wait_for_end(101)
        assert settle(opened, [*before, poison, *after]) == {"completed": 100, "dead": 1}
        assert len([run for run in opened.ledger("began") if run.message_id == poison]) == 2
        message = ask(opened.client, one_message(poison))
        assert message is not None
        assert [event.state for event in message.events] == [State.STARTED, State.LOST, State.STARTED, State.LOST]


def test_of_a_hundred_coroutines_only_the_one_that_kills_their_process_is_a_dead_letter(tmp_path: Path) -> None:
    """It is run with fewer and fewer of the others until it is alone, and each of them completes."""
    with scene(tmp_path, WORKER_LEASE="1s") as opened:
        before = opened.send_many("work", [[300]] * 60)
        poison = opened.send("kills")
        sent = [*before, poison, *opened.send_many("work", [[300]] * 39)]
        starts = 0
        while opened.ended() < 100:
            # As a supervisor would.
            starts += 1
            worker = opened.start(str(starts), variables={"WORKER_CONCURRENCY": "100"})
            wait_until(partial(_ends_or_all_end, worker, opened, 100), explain=opened.explain)
        assert settle(opened, sent) == {"completed": 99, "dead": 1}
        assert opened.states()["dead"] == 1
        assert starts <= 4, "in the crowd, among few, alone, and the one that lives"
        runs = Counter(run.message_id for run in opened.ledger("began"))
        assert runs[poison] == starts - 1
        assert sum(runs.values()) <= 100 + 100 + 8 + 1


@pytest.mark.clock
def test_a_hundred_coroutines_of_a_killed_process_are_soon_run_again(tmp_path: Path) -> None:
    """Few at a time, because one of them may be why: that takes far less time than one after the other."""
    with scene(tmp_path, WORKER_LEASE="1s") as opened:
        hundred = {"WORKER_CONCURRENCY": "100"}
        victim = opened.start_ready("victim", variables=hundred)
        sent = opened.send_many("work", [[300]] * 100)
        wait_until(lambda: opened.states()["running"] == 100, explain=opened.explain)
        victim.kill()
        opened.start_ready("other", variables=hundred)
        wait_until(lambda: opened.states()["queued"] < 100 and opened.ledger("began")[100:], explain=opened.explain)
        began_at = time.monotonic()
        opened.wait_for_end(100)
        assert time.monotonic() - began_at < 100 * 0.3 / 3
        assert settle(opened, sent) == {"completed": 100}


def test_a_message_that_was_cancelled_is_not_run_again_when_its_worker_dies(quick: Scene) -> None:
    """Before the worker could hear of it: CANCELLED, though another had taken it over otherwise."""
    victim = quick.start_ready("victim")
    sent = quick.send_to_both("gated", [["gate"]] * 2)
    cancelled = sent[:2]
    wait_until(lambda: quick.states()["running"] == 4 and len(quick.ledger("began")) == 4)
    victim.signal(signal.SIGSTOP)
    assert cancel(quick.client, cancelled, by="ann").done == tuple(cancelled)
    victim.kill()
    (quick.folder / "gate").touch()
    quick.start_ready("other")
    quick.wait_for_end(4)
    assert settle(quick, sent) == {"cancelled": 2, "completed": 2}
    for message_id in cancelled:
        assert [run.worker for run in quick.ledger("began") if run.message_id == message_id] == ["victim"]
        message = ask(quick.client, one_message(message_id))
        assert message is not None
        assert [event.state for event in message.events] == [State.STARTED, State.REQUESTED, State.LOST]
        assert quick.client.exists(f"{{worker}}:cancel:{message_id}")


def test_what_a_killed_process_has_enqueued_of_itself_runs_after_its_message_has_ended(
    quick: Scene, runner: str
) -> None:
    """The attempt that died is made good first, though it enqueues nothing; then that runs, once."""
    quick.runner = runner
    victim = quick.start("victim")
    sent = quick.send("again", "gate", 2)
    quick.sent_again.add(sent)
    wait_until(lambda: len(quick.ledger("round-2")) == 1 and quick.states()["running"] == 1, explain=quick.explain)
    victim.kill()
    (quick.folder / "gate").touch()
    quick.start("other")
    wait_until(lambda: len(quick.ledger("done")) == 2, explain=quick.explain)
    quick.wait_for_end(1)
    assert [(run.what, run.attempt, run.worker) for run in quick.ledger()] == [
        ("round-2", 1, "victim"),
        ("round-2", 2, "other"),
        ("done", 2, "other"),
        ("round-1", 3, "other"),
        ("done", 3, "other"),
    ]
    assert settle(quick, [sent]) == {"completed": 1}
    message = ask(quick.client, one_message(sent))
    assert message is not None
    began_and_ended = [State.STARTED, State.COMPLETED]
    assert [event.state for event in message.events] == [State.STARTED, State.LOST, *began_and_ended * 2]


def _has_done(opened: Scene, number: int) -> bool:
    return len(opened.ledger("done")) >= number


def _ends_or_all_end(worker: WorkerCommand, opened: Scene, messages: int) -> bool:
    return worker.process.poll() is not None or opened.ended() == messages


def _only_lease(opened: Scene) -> bytes:
    (lease,) = opened.client.zrange("{worker}:leases", 0, -1)
    assert isinstance(lease, bytes)
    return lease
