"""A server that is killed, read-only, away, out of memory, or reached over connections that break."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import settle
from tests.support.load import OUTCOMES, SEED, Load
from tests.support.proxy import proxy
from tests.support.scene import HOST, WorkerCommand, free_port, scene
from tests.support.waiting import wait_until
from worker.errors import ServerUnreachable
from worker.history.events import State
from worker.history.query import ask, one_message
from worker.server.client import RedisClient


def is_troubled(worker: WorkerCommand) -> bool:
    """Whether its health check says that something is wrong."""
    return bool(worker.tells()["health"]["errors"])


def test_a_server_that_is_killed_under_load_loses_nothing_that_it_has_answered_for(tmp_path: Path) -> None:
    """Whatever was delayed, running, failing or being acknowledged when Valkey was killed ends as it should."""
    with scene(tmp_path, WORKER_LEASE="3s") as opened:
        workers = [opened.start_ready("a"), opened.start_ready("b")]
        threads = [worker.tells()["threads"] for worker in workers]
        load = Load(opened, 0.004)
        for number in (1, 2, 3):
            wait_until(lambda goal=150 * number: len(load.sent) >= goal, explain=opened.explain)  # type: ignore[misc]
            states = opened.states()
            assert states["delayed"], states
            opened.server.kill()
            opened.server.start()
        wait_until(lambda: len(load.sent) >= 600, explain=opened.explain)
        sent = load.end()
        opened.wait_for_end(len(sent))
        assert settle(opened, sent) == load.expected
        wait_until(lambda: not any(map(is_troubled, workers)), explain=opened.explain)
        assert [_lasting(worker.tells()["threads"]) for worker in workers] == [_lasting(one) for one in threads]
        assert not any(worker.tells()["health"]["events_dropped"] for worker in workers)


def becomes_a_replica(client: RedisClient) -> None:
    """As in a failover, of a master that cannot be reached."""
    client.config_set("replica-read-only", "yes")
    client.replicaof(HOST, str(free_port()))


def becomes_a_master(client: RedisClient) -> None:
    client.replicaof("NO", "ONE")


def wants_replicas(client: RedisClient) -> None:
    """As where a replica is down: what is no error of redis-py's own, as with a full disk."""
    client.config_set("min-replicas-to-write", 1)


def wants_none(client: RedisClient) -> None:
    client.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    ("refuses", "accepts", "seconds", "says"),
    [(becomes_a_replica, becomes_a_master, 5, "read only"), (wants_replicas, wants_none, 3, "NOREPLICAS")],
    ids=["READONLY", "NOREPLICAS"],
)
def test_a_server_that_refuses_to_write_holds_things_up_and_loses_nothing(
    tmp_path: Path,
    refuses: Callable[[RedisClient], None],
    accepts: Callable[[RedisClient], None],
    seconds: int,
    says: str,
) -> None:
    """While nothing can be written everything waits, and the health check says so; then everything ends."""
    with scene(tmp_path) as opened:
        workers = [opened.start_ready("a"), opened.start_ready("b")]
        threads = [worker.tells()["threads"] for worker in workers]
        load = Load(opened, 0.01)
        wait_until(lambda: opened.ended() > 50)
        refuses(opened.client)
        began = time.monotonic()
        wait_until(lambda: all(map(is_troubled, workers)), explain=opened.explain)
        wait_until(lambda: time.monotonic() - began > seconds)
        accepts(opened.client)
        wait_until(lambda: not any(map(is_troubled, workers)), 20, opened.explain)
        goal = len(load.sent) + 100
        wait_until(lambda: len(load.sent) > goal)
        sent = load.end()
        opened.wait_for_end(len(sent))
        assert settle(opened, sent) == load.expected
        assert all(says in " ".join(worker.tells()["errors"]) for worker in workers)
        assert [_lasting(worker.tells()["threads"]) for worker in workers] == [_lasting(one) for one in threads]


def test_connections_cut_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    """Under a load, connections of workers and sender are cut wherever they are: no message is stuck or lost."""
    with scene(tmp_path) as opened, proxy(opened.server.port, SEED) as between:
        opened.go_through(between.port)
        workers = [opened.start_ready("a"), opened.start_ready("b")]
        load = Load(opened, 0.004)
        between.cut(150)
        sent = load.end()
        opened.wait_for_end(len(sent))
        assert settle(opened, sent) == load.expected
        wait_until(lambda: not any(map(is_troubled, workers)), explain=opened.explain)
        assert not any(worker.tells()["health"]["ends_refused"] for worker in workers)


def test_connections_that_fall_silent_cost_no_lease(tmp_path: Path) -> None:
    """Connections over which nothing comes any more, and no error, are given up before the lease has run out."""
    with scene(tmp_path) as opened, proxy(opened.server.port, SEED) as between:
        opened.go_through(between.port)
        worker = opened.start_ready("a")
        sent = opened.send_to_both("gated", [["gate"]] * 4)
        wait_until(lambda: opened.states()["running"] == 8 and len(opened.ledger("began")) == 8)
        between.freeze()
        frozen_at = time.monotonic()
        # It would take over.
        opened.start_ready("b")
        wait_until(lambda: is_troubled(worker), explain=opened.explain)
        wait_until(lambda: time.monotonic() - frozen_at > 11)
        (opened.folder / "gate").touch()
        opened.go_through(opened.server.port)
        sent += opened.send_to_both("work", [[5]] * 100)
        opened.wait_for_end(208)
        assert {run.worker for run in opened.ledger("done")} == {"a", "b"}
        assert settle(opened, sent) == {"completed": 208}
        wait_until(worker.is_ready, explain=opened.explain)
        assert worker.tells()["health"]["ends_refused"] == 0
        assert not [run for run in opened.ledger() if run.attempt > 1]


def test_a_server_that_has_lost_its_data_is_worked_for_again(tmp_path: Path) -> None:
    """Without groups, leases and scripts, as after a restart without a file, workers make them anew by themselves."""
    # They do not wait until their leases have run out.
    with scene(tmp_path, WORKER_LEASE="60s") as opened:
        workers = [opened.start_ready("a"), opened.start_ready("b")]
        opened.send_to_both("gated", [["gate"]] * 10)
        wait_until(lambda: opened.states()["running"] == 16)
        opened.client.flushall()
        opened.client.script_flush()
        lost_at = time.monotonic()
        (opened.folder / "gate").touch()
        sent = opened.send_to_both("work", [[5]] * 50)
        opened.wait_for_end(100)
        assert time.monotonic() - lost_at < 30
        assert settle(opened, sent) == {"completed": 100}
        wait_until(lambda: all(worker.is_ready() for worker in workers), explain=opened.explain)


def test_a_server_that_is_away_for_ten_seconds_has_every_end_once(tmp_path: Path) -> None:
    """What ends while the server is away waits, the retry with its acknowledgement; no thread dies meanwhile."""
    with scene(tmp_path) as opened:
        worker = opened.start_ready("a", threads=6)
        threads = worker.tells()["threads"]
        ok = opened.send_to_both("gated", [["gate"]] * 2)
        failing = opened.send_to_both("gated_failure", [["gate"]] * 2)
        limited = opened.send_to_both("limited", [[]] * 2)
        behind = opened.send_to_both("mixed", [[outcome, 5] for outcome in OUTCOMES * 12])
        wait_until(lambda: opened.states()["running"] == 12)
        wait_until(lambda: len(opened.ledger("began")) == 12)
        opened.server.kill()
        killed_at = time.monotonic()
        (opened.folder / "gate").touch()
        wait_until(lambda: worker.tells()["health"]["ends_waiting"] >= 12, explain=opened.explain)
        wait_until(lambda: is_troubled(worker), explain=opened.explain)
        wait_until(lambda: time.monotonic() - killed_at > 10)
        assert {run.message_id for run in opened.ledger("cleaned")} == set(limited)
        now = worker.tells()
        assert now["health"]["errors"]
        assert _lasting(now["threads"]) == _lasting(threads)
        opened.server.start()
        opened.wait_for_end(132)
        states = settle(opened, [*ok, *failing, *limited, *behind])
        assert states == {"completed": 12 + 72, "skipped": 24, "dead": 24}
        for message_id in [*failing, *limited]:
            message = ask(opened.client, one_message(message_id))
            assert message is not None
            told = [event.state for event in message.events]
            assert told == [State.STARTED, State.FAILED, State.STARTED, State.COMPLETED]
        wait_until(lambda: worker.is_ready() and not worker.tells()["health"]["ends_waiting"], explain=opened.explain)
        health = worker.tells()["health"]
        assert (health["events_dropped"], health["ends_refused"]) == (0, 0)
        assert _lasting(worker.tells()["threads"]) == _lasting(threads)


def test_without_memory_successes_are_acknowledged_and_retries_wait(tmp_path: Path) -> None:
    """A full server: successes end without their events, which are counted; retries wait until there is memory."""
    with scene(tmp_path, WORKER_LEASE="2s") as opened:
        worker = opened.start_ready("a", threads=4)
        ok = opened.send_to_both("gated", [["gate"]] * 2)
        failing = opened.send_to_both("gated_failure", [["gate"]] * 2)
        behind = opened.send_to_both("work", [[5]] * 20)
        wait_until(lambda: opened.states()["running"] == 8)
        opened.client.config_set("maxmemory", 100_000)
        full_at = time.monotonic()
        with pytest.raises(ServerUnreachable, match="refuses .OOM command not allowed when used memory"):
            opened.send("work")
        (opened.folder / "gate").touch()
        wait_until(lambda: opened.states()["completed"] == 44, explain=opened.explain)
        other = opened.start("b")
        wait_until(lambda: time.monotonic() - full_at > 5)
        assert opened.states() == {"completed": 44, "running": 4}
        health = worker.tells()["health"]
        assert health["ends_waiting"] == 4
        assert health["events_dropped"] >= 44
        assert health["lease_held"]
        opened.client.config_set("maxmemory", 0)
        later = opened.send_to_both("work", [[5]] * 20)
        opened.wait_for_end(88)
        assert settle(opened, [*ok, *failing, *behind, *later], events_dropped=True) == {"completed": 88}
        wait_until(lambda: not is_troubled(worker) and not is_troubled(other), explain=opened.explain)
        for message_id in failing:
            message = ask(opened.client, one_message(message_id))
            assert message is not None
            assert [event.state for event in message.events][-3:] == [State.FAILED, State.STARTED, State.COMPLETED]


def _lasting(threads: list[str]) -> list[str]:
    """Those that are there from the start; others come with the first attempt."""
    return [name for name in threads if name.startswith(("Thread-", "committer", "lease", "reader", "MainThread"))]
