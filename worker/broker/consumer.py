"""The consumer through which a Dramatiq worker reports the ends of a queue's messages.

It hands out no messages: the taken ones go straight to the queue of the worker's threads. It never asks the server:
the session's reader takes messages, and its committer stores their ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from dramatiq.broker import Consumer, MessageProxy

from worker.broker.session import WorkerSession
from worker.broker.taken import TakenMessage

_CLOSING_EVERY = 0.05


class StreamConsumer(Consumer):
    """Opens a queue in the session as soon as a worker asks for its messages.

    Args:
        session: The session that takes messages.
        queue: The queue's name.
        timeout: Seconds after which the worker checks whether it should end.
    """

    def __init__(self, session: WorkerSession, queue: str, timeout: float) -> None:
        self._session = session
        self._queue = queue
        self._timeout = timeout

    def __next__(self) -> MessageProxy | None:
        """Waits; always None."""
        # Not sooner: only now the worker knows this consumer, to which it reports each end.
        self._session.open_queue(self._queue)
        if not self._session.closing.wait(self._timeout):
            return None
        time.sleep(min(self._timeout, _CLOSING_EVERY))
        return None

    def ack(self, message: MessageProxy) -> None:
        """Stores the end of an attempt soon."""
        self._end(message, rejected=False)

    def nack(self, message: MessageProxy) -> None:
        """Makes a message a dead letter soon."""
        self._end(message, rejected=True)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Gives back messages that were not begun."""
        self._session.give_back([one for one in messages if isinstance(one, TakenMessage)])

    def _end(self, message: MessageProxy, *, rejected: bool) -> None:
        if isinstance(message, TakenMessage):
            self._session.end(message, rejected=rejected)
