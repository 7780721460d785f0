"""What a Dramatiq worker asks for the messages of a queue, and tells of what became of them.

It never asks the server: the session's reader takes messages, and its committer stores their ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from dramatiq.broker import Consumer, MessageProxy

from worker.broker.session import WorkerSession
from worker.broker.taken import Endings, TakenMessage


class StreamConsumer(Consumer):
    """Waits for messages of a queue in this process.

    Args:
        session: Which has taken them.
        endings: What the worker's threads put together.
        queue: Whose messages.
        timeout: Seconds to wait for one.
    """

    def __init__(self, session: WorkerSession, endings: Endings, queue: str, timeout: float) -> None:
        self._session = session
        self._endings = endings
        self._queue = queue
        self._timeout = timeout

    def __next__(self) -> MessageProxy | None:
        """The next message; `None` if there was none in time."""
        return self._session.holdings.next_of(self._queue, self._timeout)

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
            self._session.end(self._endings.take(message), rejected=rejected)
