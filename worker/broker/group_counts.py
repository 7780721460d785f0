"""Dramatiq's `GroupCallbacks`: a member of a group is counted with the end of its attempt, once.

Nothing is counted for an attempt whose end is void, because its message has gone to another process: otherwise the
callbacks would come while a member still runs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq
from dramatiq.broker import Broker, MessageProxy


@runtime_checkable
class CountsInGroup(Protocol):
    """A broker that counts a member of a group with the end of its attempt."""

    def count_in_group(
        self, message: MessageProxy, group: str, ttl_ms: int, callbacks: list[dramatiq.Message[object]]
    ) -> None:
        """Counts the message when its end is stored, and enqueues the callbacks with that if it is the last."""


class CountedGroups(dramatiq.middleware.GroupCallbacks):
    """Dramatiq's middleware, but the broker counts."""

    runs_on_loop = True

    def with_ttl(self, ttl_ms: int) -> CountedGroups:
        """The same with another time after which a group in which nothing ends is forgotten."""
        return CountedGroups(self.rate_limiter_backend, barrier_ttl=ttl_ms)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Counts a member that has ended well."""
        del result
        group = message.options.get("group_completion_uuid")
        callbacks = message.options.get("group_completion_callbacks")
        if exception is None and group and callbacks and isinstance(broker, CountsInGroup):
            messages: list[dramatiq.Message[object]] = [dramatiq.Message(**one) for one in callbacks]
            broker.count_in_group(message, group, self.barrier_ttl, messages)
