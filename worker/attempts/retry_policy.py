"""Decides the fate of a message after an error: skip, retry at a time, dead letter, or retry with backoff and jitter.

No other module decides that; Dramatiq's own `Retries` does the counting and the backoff.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import MiddlewareError, Retries
from dramatiq.middleware.shutdown import Shutdown
from dramatiq.results import Results

from worker.attempts.option_values import check_values
from worker.attempts.run import Cancelled, current_run
from worker.attempts.runs import WAITS, thrown_by
from worker.errors import Fatal, LeaseTaken, NoContentFound, RetryLater
from worker.ground.groups import deciding

_OF_RETRIES = ("max_retries", "min_backoff", "max_backoff", "retry_when", "on_retry_exhausted")
"""The options that only a message with retries uses."""


@runtime_checkable
class TakesBack(Protocol):
    """A broker that takes a message back at the end of its attempt."""

    def give_back(self, message: MessageProxy) -> None:
        """Ends the attempt by putting the message back into its queue."""


class UnusedOption(MiddlewareError, ValueError):
    """An option of retries beside `at_most_once`; an error of the middleware's, for Dramatiq swallows all others."""

    def __init__(self, name: str, value: object) -> None:
        shown = f"{name} of a function" if callable(value) else f"{name}={value!r}"
        super().__init__(
            f"{shown} contradicts at_most_once=True, which has no retries: leave one of them out "
            "(on_failure is called for an error)"
        )


class BadValue(MiddlewareError, TypeError):
    """An option with which no attempt could end; an error of the middleware's, for Dramatiq swallows all others."""


class RetryPolicy(Retries):
    """Dramatiq's retries, and the errors with which a service decides the next step.

    In a group of errors one decides (`worker.ground.groups`), also over `throws` and `retry_when`.
    """

    runs_on_loop = True

    @property
    def actor_options(self) -> set[str]:
        """The options of actors and messages: Dramatiq's, and `at_most_once` of actors."""
        options: set[str] = super().actor_options
        return options | {"at_most_once"}

    def before_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
        """Refuses a value with which no attempt could end, and what an actor that runs at most once never uses.

        Raises:
            BadValue: An option has such a value.
            UnusedOption: It has an option that it never uses.
        """
        try:
            check_values(actor.options)
        except TypeError as error:
            raise BadValue(f"{error} ({actor.actor_name})") from error
        if not actor.options.get("at_most_once"):
            return
        for name in _OF_RETRIES:
            if name in actor.options and (name, actor.options[name]) != ("max_retries", 0):
                raise UnusedOption(name, actor.options[name])

    def after_declare_actor(self, broker: Broker, actor: dramatiq.Actor[..., object]) -> None:
        """Lets an attempt that asks for a later time be expected: plug-ins that report errors do not report it."""
        actor.options["throws"] = (*thrown_by(actor), RetryLater)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Acknowledges, retries or rejects the message after an error."""
        if exception is None:
            return
        run = current_run.get()
        exception = deciding(exception)
        is_skipped = isinstance(exception, NoContentFound)
        if is_skipped or (run is not None and run.cancelled):
            if not is_skipped:
                _store_cancelled(broker, message)
            return
        if broker.get_actor(message.actor_name).options.get("at_most_once"):
            message.fail()
            return
        if isinstance(exception, Shutdown) and isinstance(broker, TakesBack):
            # The message is not at fault: the attempt counts, but not as a retry.
            broker.give_back(message)
            return
        if isinstance(exception, Fatal):
            self.logger.warning("Message %r failed for good: %s", message.message_id, exception)
            message.fail()
            return
        if isinstance(exception, RetryLater):
            self.logger.info("Message %s asks for a later time: %r", message, exception)
        if isinstance(exception, LeaseTaken):
            message.options[WAITS] = message.options.get(WAITS, 0) + 1
            broker.enqueue(message, delay=_milliseconds(exception))  # type: ignore[arg-type]  # as Dramatiq's own does
            return
        if isinstance(exception, RetryLater):
            exception = Retry(str(exception), delay=_milliseconds(exception))
        super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]


def _store_cancelled(broker: Broker, message: MessageProxy) -> None:
    """Stores that the message was cancelled, for those who wait for its result."""
    results = next((one for one in broker.middleware if isinstance(one, Results)), None)
    if results is None:
        return
    is_wanted, ttl_ms = results._lookup_options(broker, message)  # noqa: SLF001 - the options of message, actor and middleware
    if is_wanted:
        results.backend.store_exception(message, Cancelled("on request"), ttl_ms)


def _milliseconds(error: RetryLater) -> int:
    return round(error.delay.total_seconds() * 1000)
