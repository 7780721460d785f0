"""Items that wait to be stored: threads put them in, one thread takes them out, and any thread may wait for that."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from worker.threads.doorbell import Doorbell
from worker.threads.os_threads import new_condition


class Item:
    """An item to store. A subclass decides which items are joined, and which may be dropped; here: none."""

    __slots__ = ()

    @property
    def key(self) -> Hashable:
        """The item's key; waiting items with the same key are joined."""
        return id(self)

    @property
    def may_be_dropped(self) -> bool:
        """Whether the item may be dropped if too many wait."""
        return False

    def absorb(self, later: Self) -> None:
        """Adds a later item with the same key.

        Raises:
            TypeError: Items of this kind are not joined: each has a key of its own.
        """
        raise TypeError(f"a {type(self).__name__} takes in no {type(later).__name__}: each needs a key of its own")


T = TypeVar("T", bound=Item)


class Waiting(Generic[T]):
    """The items that are not stored yet, in the order of their coming.

    One thread calls `take`, `put_back` and `remove`; any thread or greenlet may call the rest.
    """

    def __init__(self) -> None:
        self._doorbell = Doorbell()
        self._changed = new_condition()
        # Other threads append here without the lock, for which all of them would wait: see
        # docs/explanation/waking-without-a-lock.md.
        self._inbox: deque[T | _Mark] = deque()
        self._sorted: dict[Hashable, T] = {}
        self._sent: dict[Hashable, T] = {}
        self._marks: list[_Mark] = []
        self._flushing = 0
        self._closed = False

    def put(self, item: T) -> None:
        """Puts an item behind the others."""
        self._inbox.append(item)
        if self._doorbell.asleep:
            self._doorbell.ring()

    def __len__(self) -> int:
        """The number of items that wait to be taken."""
        return len(self._inbox) + len(self._sorted)

    def not_stored(self) -> list[T]:
        """The items that are not stored yet: they wait, or are being sent."""
        with self._changed:
            inbox = (one for one in tuple(self._inbox) if not isinstance(one, _Mark))
            return [*self._sent.values(), *self._sorted.values(), *inbox]

    def flush(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds until all earlier items are stored; False if they are not."""
        if not self.not_stored():
            return True
        mark = _Mark()
        self._inbox.append(mark)
        with self._changed:
            self._flushing += 1
            self._wake_all()
            try:
                self._changed.wait_for(lambda: mark.is_passed() or self._closed, timeout)
            finally:
                self._flushing -= 1
            return mark.is_passed()

    def wait_until_below(self, number: int, timeout: float) -> bool:
        """Waits until fewer items wait to be taken, at most `timeout` seconds; False: there are still as many."""
        if len(self) < number:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: len(self) < number, timeout)

    def close(self) -> None:
        """Lets the thread take the remaining items without delay, and then end."""
        with self._changed:
            self._closed = True
            self._wake_all()

    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    def rest(self, seconds: float) -> bool:
        """Lets so many seconds pass; returns False at once when nothing more comes."""
        with self._changed:
            return not self._changed.wait_for(self.is_closed, seconds)

    def take(self, most: int, enough: int, gather: float) -> list[T]:
        """Waits for items, and takes out the first of them.

        Args:
            most: The most items to take.
            enough: The number of items that are worth a round trip.
            gather: Seconds to wait for that number, unless a caller waits for the present items.

        Returns:
            The items; empty if only a caller waited, or after `close`.
        """
        while not self._has_work():
            self._doorbell.sleep(unless=self._has_work)
        with self._changed:
            self._sort_inbox()
            if len(self._sorted) < enough and not self._is_pressed():
                self._changed.wait_for(self._is_pressed, gather)
                self._sort_inbox()
            taken = list(itertools.islice(self._sorted.items(), most))
            for key, item in taken:
                del self._sorted[key]
                self._sent[key] = item
            return [item for _, item in taken]

    def put_back(self, items: Iterable[T]) -> None:
        """Puts taken items back to wait again, behind newer ones."""
        with self._changed:
            for item in items:
                del self._sent[item.key]
                later = self._sorted.get(item.key)
                if later is not None:
                    item.absorb(later)
                self._sorted[item.key] = item

    def remove(self, items: Sequence[T]) -> None:
        """Forgets items that were taken: nobody need wait for them."""
        with self._changed:
            for item in items:
                del self._sent[item.key]
            for mark in self._marks:
                mark.missing.difference_update(item.key for item in items)
            self._pass_marks()
            self._changed.notify_all()

    def _wake_all(self) -> None:
        self._changed.notify_all()
        self._doorbell.ring()

    def _has_work(self) -> bool:
        return bool(self._inbox or self._sorted or self._closed)

    def _is_pressed(self) -> bool:
        return self._flushing > 0 or self._closed

    def _sort_inbox(self) -> None:
        while self._inbox:
            one = self._inbox.popleft()
            if isinstance(one, _Mark):
                one.missing, one.is_reached = set(self._sorted), True
                self._marks.append(one)
            elif (earlier := self._sorted.setdefault(one.key, one)) is not one:
                earlier.absorb(one)
        self._pass_marks()

    def _pass_marks(self) -> None:
        if self._marks:
            self._marks = [mark for mark in self._marks if not mark.is_passed()]
            self._changed.notify_all()


@dataclass(slots=True, eq=False)
class _Mark:
    """A mark that a flush puts behind the items for which it waits.

    Attributes:
        is_reached: Whether the thread has reached it.
        missing: The keys of the items before it that are not stored yet.
    """

    is_reached: bool = False
    missing: set[Hashable] = field(default_factory=set)

    def is_passed(self) -> bool:
        """Whether everything before it is stored."""
        return self.is_reached and not self.missing
