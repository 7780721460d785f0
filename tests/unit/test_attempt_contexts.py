"""Each attempt has a context of its own: what its actor binds ends with it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

import dramatiq
import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from tests.support.attempts import attempt_run
from worker import ProcessingStatusContext, actor, current_attempt
from worker.attempts.runs import as_body
from worker.ground.scope import scope
from worker.testing import StubWorker, stub_worker

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.fixture
def stub() -> Iterator[StubWorker]:
    """A worker with one thread, on which one message comes after the other."""
    with stub_worker(threads=1) as running:
        yield running
        running.broker.actors.clear()


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_message_on_the_thread_sees_nothing_of_what_an_actor_bound(stub: StubWorker, fails: bool) -> None:
    """Neither its variables nor the fields of its log lines, whether it completes or fails."""
    seen: list[tuple[str, dict[str, object], Mapping[str, object]]] = []

    @actor(max_retries=0)
    def binds(name: str) -> None:
        attempt = scope.get()
        assert attempt is not None
        seen.append((tenant.get(), get_contextvars(), attempt.log_fields()))
        tenant.set(name)
        bind_contextvars(customer=name)
        if fails:
            raise ValueError(name)

    messages = [binds.send("first"), binds.send("second")]
    stub.join()
    assert seen == [
        ("nobody", {}, {"message_id": message.message_id, "actor": "binds", "attempt": 1}) for message in messages
    ]


def test_a_status_context_that_an_actor_leaves_open_ends_with_its_attempt(stub: StubWorker) -> None:
    """The next message's context is no span of it."""

    @dramatiq.actor(broker=stub.broker)
    def leaves_open() -> None:
        ProcessingStatusContext("opened").__enter__()

    leaves_open.send()
    leaves_open.send()
    stub.join()
    assert [event.parent for event in stub.events if event.event == "opened.started"] == [None, None]


def test_the_body_sees_what_middleware_bound_and_its_own_attempt() -> None:
    """Its context is a copy of its runner's, in which nothing changes."""

    def body() -> tuple[str, str]:
        found = current_attempt()
        assert found is not None
        bound = tenant.get(), found.message_id
        tenant.set("the body's")
        return bound

    def runner() -> tuple[tuple[str, str], str]:
        run = attempt_run("m1")
        run.enter()
        tenant.set("the runner's")
        as_bound: Callable[[], tuple[str, str]] = as_body(body)
        return as_bound(), tenant.get()

    assert contextvars.copy_context().run(runner) == (("the runner's", "m1"), "the runner's")
