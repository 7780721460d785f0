"""A thread that stores the items of other threads: many share a round trip, and a repeat is not stored twice.

It waits for the server as long as it must. It drops items only if too many wait, and counts them.
"""

from __future__ import annotations

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis

from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.history.waiting import Item, Waiting
from worker.server.client import RedisClient
from worker.server.scripts import Argument
from worker.threads.os_threads import new_lock

logger = get_logger(__name__)

T = TypeVar("T", bound=Item)

_EXPECTED = (redis.RedisError, OSError, WorkerError)
_RETRY_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)
_MEMORY_DELAY = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a storing thread.

    Attributes:
        gather: Seconds in which items gather, unless a whole group waits, or a caller waits for them.
        group: The most items that one call of the script stores, because the server does nothing else meanwhile.
        at_once: The most groups that share a round trip. With several, a group may be stored before the one ahead.
        most: The number of waiting items from which droppable ones are dropped.
    """

    gather: float
    group: int
    at_once: int
    most: int


class StoringThread(ABC, Generic[T]):
    """Takes items from any thread or greenlet, and stores them from a thread of its own, which the first item starts.

    A group of items is sent under a name that the server remembers: after a lost answer it is sent again, and stored
    once. A subclass makes a script's arguments from a group, and handles the answer.

    Args:
        name: The name of the thread.
        token: The name of this thread on the server; each thread has its own.
        open_client: Makes the client, in the thread, at its first use.
        pace: The pace of storing.

    Attributes:
        waiting: The items that are not stored yet.
        dropped: The number of events that were dropped.
        error: The reason why it cannot store now, or None.
    """

    def __init__(self, name: str, token: str, open_client: Callable[[], RedisClient], pace: Pace) -> None:
        self._name = name
        self._open_client = open_client
        self._pace = pace
        self.begin_anew(token)

    def begin_anew(self, token: str) -> None:
        """Forgets everything, in a forked child: it has no such thread, and the parent stores earlier items."""
        self._token = token
        self._numbers = itertools.count()
        self._client: RedisClient | None = None
        self._thread: threading.Thread | None = None
        self._lock = new_lock()
        self.waiting: Waiting[T] = Waiting()
        self.dropped = 0
        self._dropped_told = 0
        self.error: str | None = None

    @abstractmethod
    def send(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Calls the script once for each group, in one round trip; an answer may be an error of the server."""

    @abstractmethod
    def arguments(self, name: str, items: Sequence[T]) -> list[Argument]:
        """The script's arguments for a group of this name."""

    @abstractmethod
    def give_up(self, items: Sequence[T], why: str) -> None:
        """Called with items that will not be stored: the server does not accept one, or the process ends."""

    def stored(self, items: Sequence[T], answer: Any) -> None:  # noqa: ANN401 - as the script answers
        """Called when a group is stored, with the script's answer."""

    def do_without_memory(self, client: RedisClient, items: Sequence[T]) -> Sequence[T] | None:  # noqa: ARG002
        """Called when the server has no memory for a group; stores the part that needs none.

        Returns:
            The items that wait for memory, behind all later ones. None: nothing was stored, and the group keeps its
            place.
        """
        return None

    def start(self) -> None:
        """Starts the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def take(self, item: T) -> None:
        """Takes an item, to be stored soon; drops it if it may be and too much waits."""
        if item.may_be_dropped and len(self.waiting) >= self._pace.most:
            self.drop(1)
            return
        self.waiting.put(item)
        if self._thread is None:
            self.start()

    def drop(self, events: int) -> None:
        """Counts events that are not stored."""
        with self._lock:
            self.dropped += events

    def flush(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds until all earlier items are stored; False if they are not."""
        return self.waiting.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Stores the waiting items for at most `timeout` seconds, and ends the thread; False if some are left."""
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        self.waiting.close()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        left = self.waiting.not_stored()
        if left:
            self.give_up(left, "the process ends")
        return not left

    def new_name(self) -> str:
        """A name for a group, which no other has."""
        return f"{self._token}:{next(self._numbers)}"

    def failed(self, error: Exception) -> None:
        """Notes why nothing can be stored at present."""
        if self.error is None:
            unexpected = not isinstance(error, _EXPECTED)
            logger.warning(
                "nothing can be stored now; it waits", thread=self._name, error=str(error), exc_info=unexpected
            )
        self.error = " ".join(str(error).split()) or type(error).__name__

    def _run(self) -> None:
        while not self._is_over():
            self._store_next()

    def _store_next(self) -> None:
        size = self._pace.group
        items = self.waiting.take(size * self._pace.at_once, size, self._pace.gather)
        if items:
            self._store([self._group(items[first : first + size]) for first in range(0, len(items), size)])

    def _is_over(self) -> bool:
        return self.waiting.is_closed() and (self.error is not None or not self.waiting)

    def _group(self, items: Sequence[T]) -> _Group[T]:
        return _Group(self.new_name(), items)

    def _store(self, groups: Sequence[_Group[T]]) -> None:
        for group, answer in zip(groups, self._answers(groups), strict=True):
            if isinstance(answer, Exception):
                self._insist(group, answer)
            else:
                self._succeeded(group, answer)

    def _answers(self, groups: Sequence[_Group[T]]) -> list[Any]:
        try:
            if self._client is None:
                self._client = self._open_client()
            return self.send(self._client, [self.arguments(group.name, group.items) for group in groups])
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must not die
            return [error] * len(groups)

    def _insist(self, group: _Group[T], error: Exception) -> None:
        """Sends a group again until it is stored, or cannot be."""
        for failures in itertools.count():
            self.failed(error)
            if isinstance(error, redis.exceptions.OutOfMemoryError) and self._put_off(group):
                return
            if _is_about_items(error) and failures > 0:
                self._store_each(group)
                return
            if self._client is not None:
                self._client.connection_pool.disconnect()
            if isinstance(error, redis.ResponseError):
                # The server knows the name, and has not stored the group. In any other case it may have.
                group.name = self.new_name()
            if not self.waiting.rest(_RETRY_DELAYS[min(failures, len(_RETRY_DELAYS) - 1)]):
                return
            [answer] = self._answers([group])
            if not isinstance(answer, Exception):
                self._succeeded(group, answer)
                return
            error = answer

    def _put_off(self, group: _Group[T]) -> bool:
        """Puts a group back to wait for memory; False if it keeps its place."""
        left = None if self._client is None else self.do_without_memory(self._client, group.items)
        if left is None:
            return False
        self.waiting.put_back(left)
        waits = {item.key for item in left}
        self.waiting.remove([item for item in group.items if item.key not in waits])
        if left:
            self.waiting.rest(_MEMORY_DELAY)
        return True

    def _store_each(self, group: _Group[T]) -> None:
        """Stores the items one by one, so that one that the server refuses does not stop the others."""
        if len(group.items) == 1:
            self.give_up(group.items, "the server does not accept it")
            self.waiting.remove(group.items)
            return
        for item in group.items:
            self._store([self._group([item])])

    def _succeeded(self, group: _Group[T], answer: Any) -> None:  # noqa: ANN401 - as the script answers
        self.stored(group.items, answer)
        self.waiting.remove(group.items)
        if self.error is not None:
            self.error = None
            logger.info("it is being stored again", thread=self._name)
        if self.dropped > self._dropped_told and not self.waiting:
            count, self._dropped_told = self.dropped - self._dropped_told, self.dropped
            logger.warning("events were dropped: more came than the server took", count=count)


@dataclass(slots=True)
class _Group(Generic[T]):
    """Items that one call of the script stores."""

    name: str
    items: Sequence[T]


def _is_about_items(error: Exception) -> bool:
    """Whether an item is the reason. Other reasons pass: the server is away, read-only or busy, or its disk is full."""
    if type(error) is redis.ResponseError:
        code = str(error).partition(" ")[0]
        return not code.isupper() or code == "WRONGTYPE"
    return isinstance(error, redis.DataError) or not isinstance(error, _EXPECTED)
