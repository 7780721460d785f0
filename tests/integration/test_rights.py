"""Each kind of program, as a user of the server with just the rights that the documentation names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from tests.support.project import ROOT
from tests.support.scene import HOST, Scene, scene
from tests.support.waiting import wait_until
from tests.support.web import following, serving
from worker import actor
from worker.broker import create_broker, enqueue_unique
from worker.cli.status import look
from worker.errors import ServerRefused
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import audit_log
from worker.history.query import all_messages, ask, count_messages, delayed_messages, read_events
from worker.operations.actions import cancel, pause, purge, replay, resume, run_now
from worker.operations.doctor import Severity, examine
from worker.operations.health import HealthState, check_health
from worker.server.connection import connect
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import create_app

PAGE = ROOT / "docs" / "reference" / "rights.md"
USERS = re.findall(r"^user (\w+) (.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Scene]:
    """A server with these users."""
    with scene(tmp_path) as made:
        for name, rights in USERS:
            made.client.execute_command("ACL", "SETUSER", name, *rights.split())
        made.client.execute_command("ACL", "LOG", "RESET")
        yield made
        put_in_force(None)


@pytest.fixture
def settings_of(opened: Scene, tmp_path: Path) -> Callable[[str], Settings]:
    def made(user: str) -> Settings:
        url = f"redis://{user}:password@{HOST}:{opened.server.port}/0"
        return Settings.model_validate({"data_dir": tmp_path, "redis_url": url, "actors": ("tests.support.web",)})

    return made


def refused(opened: Scene) -> list[str]:
    """What was refused to anybody, of commands and keys."""
    log: Any = opened.client.acl_log()
    # redis-py asks managed servers for their plans, and does without.
    return [str(one) for one in log if "maint" not in str(one).lower()]


def message(queue: str = "default") -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name=queue, actor_name="one", args=(), kwargs={}, options={})


def test_there_is_a_line_for_each_kind() -> None:
    """And none for somebody else."""
    assert [name for name, _ in USERS] == ["producer", "worker", "web", "operator"]


def test_a_producer_sends_and_can_do_nothing_else(
    opened: Scene, settings_of: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, later, uniquely, many at once, and again; also to the loop."""
    broker = create_broker(settings_of("producer"))
    monkeypatch.setattr("dramatiq.broker.global_broker", broker)

    @actor(concurrency=2)
    async def on_the_loop() -> None:
        """Does nothing."""

    on_the_loop.send()
    one = message()
    broker.enqueue(one)
    broker.enqueue(message(), delay=60_000)
    for _ in range(2):
        enqueue_unique(message(), key="a", ttl=timedelta(minutes=1))
    broker.enqueue_many([message() for _ in range(3)])  # type: ignore[attr-defined]
    assert opened.states() == {"queued": 6, "delayed": 1}
    assert refused(opened) == []
    client = connect(settings_of("producer"))
    for words in (("FLUSHALL",), ("SET", "other", "1"), ("KEYS", "*"), ("CONFIG", "GET", "*")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*words)
    with pytest.raises(ServerRefused, match="NOPERM"):
        pause(client, "default")
    broker.close()
    client.close()


def test_a_worker_runs_messages_of_every_kind(opened: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What completes, is skipped, is retried, fails for good, is delayed, cancelled, or lost with another worker."""
    user = {"WORKER_REDIS_URL": f"redis://worker:password@{HOST}:{opened.server.port}/0", "WORKER_LEASE": "1s"}
    outcomes = ["completed", "skipped", "retried", "dead"]
    opened.send_many("mixed", [[one] for one in outcomes])
    opened.send("work", delay=100)
    doomed = opened.start_ready("doomed", threads=1, variables=user)
    running = opened.send("gated", "never")
    wait_until(lambda: running in {run.message_id for run in opened.ledger("began")}, explain=opened.explain)
    doomed.kill()
    opened.start_ready("a", variables=user)
    wait_until(lambda: len([one for one in opened.ledger("began") if one.message_id == running]) == 2)
    cancel(opened.client, [running])
    opened.wait_for_end(len(outcomes) + 2)
    assert opened.states() == {"completed": 3, "skipped": 1, "dead": 1, "cancelled": 1}
    opened.workers["a"].terminate()
    opened.workers["a"].process.wait(60)
    assert refused(opened) == []


def test_whoever_only_looks_sees_everything_and_changes_nothing(
    opened: Scene, settings_of: Callable[[str], Settings]
) -> None:
    """Pages, the API, the live tail, metrics, status and health."""
    sent = opened.send("work")
    opened.send("work", delay=60_000)
    own = settings_of("web")
    client = connect(own)
    assert look(client, own, timedelta(hours=1)).messages == {"queued": 1, "delayed": 1}
    assert check_health(client, own).state is HealthState.DEGRADED  # no worker is alive
    assert read_events(client, EventFilter(), 10) == []
    with serving(create_app(own)) as web:
        for path in ("/", "/messages?actor=work", f"/messages/{sent}", "/dead", "/delayed", "/running", "/workers"):
            assert web.get(path).status_code == 200, path
        for path in ("/messages?state=queued&subject=a%3D1", "/queues", "/audit", "/events", "/states"):
            assert web.get(f"/api{path}").status_code == 200, path
        assert web.get("/metrics").status_code == 200
        with following(web) as told:
            assert next(told)
    assert refused(opened) == []
    with pytest.raises(ServerRefused, match="NOPERM"):
        cancel(client, [sent])
    assert opened.states() == {"queued": 1, "delayed": 1}
    client.close()


def test_an_operator_acts(opened: Scene, settings_of: Callable[[str], Settings]) -> None:
    """Every action, the audit log, and the doctor, who is only not told of the snapshots."""
    opened.send_many("mixed", [["dead"]] * 2)
    worker = opened.start_ready("a")
    opened.wait_for_end(2)
    worker.terminate()
    worker.process.wait(60)
    own = settings_of("operator")
    client, broker = connect(own), create_broker(own)
    dead = [one.id for one in all_messages(client, MessageFilter(states=("dead",)))]
    replay(client, dead[:1])
    purge(client, dead[1:])
    cancel(client, dead[:1])
    broker.enqueue(message(), delay=60_000)
    (delayed,) = ask(client, delayed_messages())
    run_now(client, [delayed.id])
    pause(client, "default")
    resume(client, "default")
    assert count_messages(client, MessageFilter(actor="one")) == 1
    assert len(ask(client, audit_log(10))) == 6
    assert refused(opened) == []
    findings = examine(client, own)
    assert [one.name for one in findings if one.severity is Severity.PROBLEM] == ["work"]
    client.close()
    broker.close()
