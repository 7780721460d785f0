"""What programs rely on is on our broker as it is on Dramatiq's own: each test runs on both."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import date
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.middleware.current_message import CurrentMessage

from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import actor


def test_a_retried_message_brings_its_traceback_and_the_time(broker: dramatiq.Broker) -> None:
    """As options, with the count of its retries; the traceback ends with the error."""
    broker.add_middleware(CurrentMessage())
    seen: list[dict[str, Any]] = []

    @dramatiq.actor(max_retries=1)
    def fails() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append(dict(message.options))
        if len(seen) == 1:
            raise ValueError("no such address")

    with working(broker):
        fails.send()
        wait_until(lambda: len(seen) == 2)
    first, second = seen
    assert "traceback" not in first
    assert second["retries"] == 1
    assert abs(time.time() * 1000 - second["requeue_timestamp"]) < 60_000
    assert second["traceback"].startswith("Traceback (most recent call last)")
    assert second["traceback"].endswith("ValueError: no such address\n")
    assert ", in fails\n" in second["traceback"]


def test_hooks_on_an_instance_are_called(broker: dramatiq.Broker) -> None:
    """Those that were set before it was added, and those that are set while messages run."""
    calls: list[str] = []

    class Mine(Middleware):
        pass

    def hook(name: str) -> Any:
        return lambda *_args, **_options: calls.append(name)

    mine = Mine()
    mine.before_enqueue = hook("early")  # type: ignore[method-assign]
    broker.add_middleware(mine)

    @dramatiq.actor
    def greet() -> None: ...

    with working(broker) as worker:
        greet.send()
        broker.join("default", timeout=20_000)
        worker.join()
        assert calls == ["early"]
        mine.after_ack = hook("late")  # type: ignore[method-assign]
        del mine.before_enqueue
        greet.send()
        wait_until(lambda: calls == ["early", "late"])


def test_a_delay_is_told_before_the_attempt(broker: dramatiq.Broker) -> None:
    """By `before_delay_message`, once for each delay; the attempt itself has no due time among its options."""
    told: list[tuple[str, str, bool]] = []

    class Tells(Middleware):
        def before_delay_message(self, broker: dramatiq.Broker, message: Any) -> None:
            told.append(("delayed", message.message_id, message.failed))

        def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
            told.append(("runs", message.message_id, "eta" in message.options))

    broker.add_middleware(Tells())

    @dramatiq.actor(max_retries=1)
    def fails() -> None:
        if len(told) < 4:
            raise ValueError("the first attempt")

    with working(broker):
        fails.send()
        later = fails.send_with_options(delay=20)
        wait_until(lambda: len(told) >= 5)
    mine = [(what, flag) for what, message_id, flag in told if message_id == later.message_id]
    assert mine[:2] == [("delayed", False), ("runs", False)]


def test_a_middleware_is_placed_by_dramatiqs_classes(broker: dramatiq.Broker) -> None:
    """Before the time limit, and after the notice of shutdowns, also where ours does their work."""

    class First(Middleware):
        pass

    class Second(Middleware):
        pass

    broker.add_middleware(First(), before=dramatiq.middleware.TimeLimit)
    broker.add_middleware(Second(), after=dramatiq.middleware.ShutdownNotifications)
    names = [type(one).__name__ for one in broker.middleware]
    assert names[names.index("TimeLimit") - 1] == "First"
    assert names[names.index("ShutdownNotifications") + 1] == "Second"


class Skips(Middleware):
    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        if message.options.get("skip"):
            raise SkipMessage("not today")


def test_a_skipped_message_has_the_result_none(broker: dramatiq.Broker) -> None:
    """Whoever waits for it has it at once."""
    broker.add_middleware(Skips())

    @dramatiq.actor(store_results=True)
    def greet() -> str:
        return "hello"

    with working(broker):
        assert greet.send().get_result(block=True) == "hello"
        assert greet.send_with_options(skip=True).get_result(block=True) is None


def test_a_failed_message_has_its_error_as_the_result(broker: dramatiq.Broker) -> None:
    """Once it is a dead letter."""

    @dramatiq.actor(store_results=True, max_retries=1)
    def fails() -> str:
        raise ValueError("no such address")

    with working(broker), pytest.raises(dramatiq.results.ResultFailure, match="ValueError: no such address"):
        fails.send().get_result(block=True)


@pytest.mark.parametrize("message_id", ["orders/2026/11", "a b", "ключ", "q?x=1#y"])
def test_an_id_may_hold_any_sign(broker: dramatiq.Broker, message_id: str) -> None:
    """The message runs under it."""
    ran: list[int] = []

    @dramatiq.actor
    def greet(number: int) -> None:
        ran.append(number)

    with working(broker):
        broker.enqueue(greet.message(7).copy(message_id=message_id))
        wait_until(lambda: ran == [7])


class WithDates(dramatiq.JSONEncoder):
    """As programs have it: what JSON does not know becomes an object with a mark."""

    def encode(self, data: Any) -> bytes:
        return json.dumps(data, default=lambda value: {"__date__": value.isoformat()}).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(
            data, object_hook=lambda found: date.fromisoformat(found["__date__"]) if "__date__" in found else found
        )


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program has set an encoder of its own."""
    monkeypatch.setattr(dramatiq.message, "global_encoder", WithDates())


def test_the_encoder_that_a_program_has_set_is_used(encoder: None, broker: dramatiq.Broker) -> None:
    """For messages, also those that are retried, in both directions."""
    seen: list[object] = []

    @dramatiq.actor(max_retries=1)
    def bill(day: date) -> None:
        seen.append(day)
        if len(seen) == 1:
            raise ValueError("the first attempt")

    with working(broker):
        bill.send(date(2026, 11, 27))
        wait_until(lambda: seen == [date(2026, 11, 27)] * 2)


def test_middleware_finds_the_error_that_is_being_handled(broker: dramatiq.Broker) -> None:
    """Also of a coroutine: `sys.exc_info()` and `traceback.format_exc()` have it, as plug-ins expect."""
    found: list[object] = []

    class Looks(Middleware):
        runs_on_loop = True

        def after_process_message(
            self, broker: dramatiq.Broker, message: Any, *, result: object = None, exception: object = None
        ) -> None:
            with contextlib.suppress(Exception):
                raise_again()

    def raise_again() -> None:
        try:
            raise  # noqa: PLE0704 - what is being handled
        except ValueError as error:
            found.append(str(error))

    broker.add_middleware(Looks())

    @actor(max_retries=0)
    async def fails() -> None:
        raise ValueError("odd")

    with working(broker):
        fails.send()
        wait_until(lambda: found == ["odd"])
