"""What a Dramatiq worker tells of what became of a queue's messages.

It hands out none: those that are taken go straight to the queue from which the worker's threads take. It never asks the
server: the session's reader takes messages, and its committer stores their ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from dramatiq.broker import Consumer, MessageProxy

from worker.broker.session import WorkerSession
from worker.broker.taken import TakenMessage

_CLOSING_EVERY = 0.05


class StreamConsumer(Consumer):
    """Has the messages of a queue taken as long as a worker asks for them.

    Args:
        session: It takes them.
        queue: Whose messages.
        timeout: Seconds after which the worker looks whether it goes on.
    """

    def __init__(self, session: WorkerSession, queue: str, timeout: float) -> None:
        self._session = session
        self._queue = queue
        self._timeout = timeout

    def __next__(self) -> MessageProxy | None:
        """Waits; always None."""
        # Not sooner: only now the worker knows this consumer, which it tells of each end.
        self._session.open_queue(self._queue)
        if not self._session.closing.wait(self._timeout):
            return None
        time.sleep(min(self._timeout, _CLOSING_EVERY))
        return None

    def ack(self, message: MessageProxy) -> None:
        """Has the end of an attempt stored."""
        self._end(message, rejected=False)

    def nack(self, message: MessageProxy) -> None:
        """Has a message made a dead letter."""
        self._end(message, rejected=True)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Gives messages back that were not begun."""
        self._session.give_back([one for one in messages if isinstance(one, TakenMessage)])

    def _end(self, message: MessageProxy, *, rejected: bool) -> None:
        if isinstance(message, TakenMessage):
            self._session.end(message, rejected=rejected)
