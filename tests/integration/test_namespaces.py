"""Environments that share a server: each sees its own, whatever the names are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results import ResultMissing, Results

from tests.support.workers import working
from worker.broker import create_broker
from worker.broker.backend import NamespacedBackend, NamespacedResults
from worker.broker.streams import StreamBroker
from worker.broker.terms import Terms
from worker.history.events import StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.overview import workers
from worker.history.query import all_messages, ask, state_counts
from worker.history.tail import BEGINNING, follow_events
from worker.operations.actions import pause
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.settings.groups import put_in_force

JOIN_MS = 20_000


def of_namespace(settings: Settings, name: str, **more: object) -> Settings:
    return settings.model_copy(update={"namespace": name, "min_backoff": timedelta(milliseconds=1), **more})


class Environment:
    """A program with one actor, a worker, and what it has run."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        broker = create_broker(of_namespace(settings, name))
        assert isinstance(broker, StreamBroker)
        self.broker = broker
        self.client = connect(of_namespace(settings, name))
        self.runs: list[str] = []
        self.done: list[str] = []
        self.note = dramatiq.actor(actor_name="note", broker=broker)(self._note)
        self.finish = dramatiq.actor(actor_name="finish", broker=broker)(self._finish)

    def _note(self, text: str) -> str:
        self.runs.append(text)
        return text

    def _finish(self) -> None:
        self.done.append(self.name)


@pytest.fixture
def environments(settings: Settings, valkey: EmbeddedServer) -> Iterator[tuple[Environment, Environment]]:
    made = Environment(settings, "staging"), Environment(settings, "live.2")
    yield made
    for one in made:
        one.broker.close()
    put_in_force(settings)


def test_two_environments_on_one_server_never_meet(environments: tuple[Environment, Environment]) -> None:
    """Each runs its own messages, with the same ids, actors, queues, unique keys and groups; every key is its own."""
    staging, live = environments
    for one in environments:
        one.broker.enqueue(one.note.message(f"same id in {one.name}").copy(message_id="same"))
        unique = one.broker.enqueue_many([one.note.message(f"unique in {one.name}")], Terms(key="key", ttl_ms=60_000))[
            0
        ]
        assert (
            one.broker.enqueue_many([one.note.message("a second")], Terms(key="key", ttl_ms=60_000))[0].message_id
            == unique.message_id
        )
        group = dramatiq.group([one.note.message(f"{number} of {one.name}") for number in range(3)], broker=one.broker)
        group.add_completion_callback(one.finish.message())
        group.run()
    assert ask(staging.client, state_counts()) == ask(live.client, state_counts()) == {"queued": 5}
    with working(staging.broker):
        staging.broker.join("default", timeout=JOIN_MS)
        assert [one.queues for one in ask(staging.client, workers())] == [("default",)]
        assert ask(live.client, workers()) == ()
        assert live.runs == []
        pause(staging.client, "default")
        with working(live.broker):
            live.broker.join("default", timeout=JOIN_MS)
    for one in environments:
        texts = {f"same id in {one.name}", f"unique in {one.name}", *(f"{number} of {one.name}" for number in range(3))}
        assert (set(one.runs), len(one.runs), one.done) == (texts, 5, [one.name])
        assert len(list(all_messages(one.client, MessageFilter()))) == 6
        assert len(_tail(one.client)) == 12
    names = [key.decode().partition(":")[0] for key in staging.client.scan_iter(count=1000)]
    assert set(names) == {"{staging}", "{live.2}"}


def _tail(client: RedisClient) -> list[StatusEvent]:
    found: list[StatusEvent] = []
    for one in follow_events(client, EventFilter(), after=BEGINNING):
        if one.event is None:
            break
        found.append(one.event)
    return found


def test_rate_limits_of_two_environments_do_not_add_up(settings: Settings, valkey: EmbeddedServer) -> None:
    """Each has a place of its own under the same name."""
    backends = [NamespacedBackend(connect(of_namespace(settings, name))) for name in ("one", "two")]
    first, second = (ConcurrentRateLimiter(backend, "limit", limit=1) for backend in backends)
    with first.acquire(raise_on_failure=False) as mine, second.acquire(raise_on_failure=False) as other:
        assert (mine, other) == (True, True)
        with first.acquire(raise_on_failure=False) as again:
            assert not again


def test_results_of_two_environments_are_kept_apart(environments: tuple[Environment, Environment]) -> None:
    """Of messages with the same id, queue and actor."""
    for one in environments:
        one.broker.add_middleware(Results(backend=NamespacedResults(one.client), store_results=True))
    staging, live = environments
    mine, other = (one.note.message(f"in {one.name}").copy(message_id="same") for one in environments)
    staging.broker.enqueue(mine)
    with working(staging.broker):
        assert mine.get_result(backend=NamespacedResults(staging.client), block=True) == "in staging"
    with pytest.raises(ResultMissing):
        other.get_result(backend=NamespacedResults(live.client))
    names = [key.decode().partition(":")[0] for key in staging.client.scan_iter(count=1000)]
    assert set(names) == {"{staging}"}


def test_dramatiqs_backends_have_the_settings_of_the_process(settings: Settings, valkey: EmbeddedServer) -> None:
    """Unless they are given a client."""
    put_in_force(of_namespace(settings, "staging"))
    backend = NamespacedBackend()
    assert backend.add("limit", 1, 60_000)
    assert backend.client.keys() == [b"{staging}:dramatiq:limit"]
    assert NamespacedResults().namespace == "{staging}:dramatiq:results"
    put_in_force(settings)


def test_dramatiqs_lists_are_kept_apart_too(settings: Settings, valkey: EmbeddedServer) -> None:
    """Those of the default namespace are where Dramatiq's own programs look for them."""
    names = []
    for name in ("worker", "staging"):
        broker = create_broker(of_namespace(settings, name, broker="redis-lists"))
        assert isinstance(broker, RedisBroker)
        names.append(broker.namespace)
        broker.close()
    put_in_force(settings)
    assert names == ["dramatiq", "{staging}:dramatiq:lists"]
