"""Leases for tasks: `with lease("merge:42")` keeps two messages from doing the same thing at the same time.

A lease belongs to a message, not to a process: the message's own retries enter it again, and no other message can
release it. It is renewed while it is held, so that it outlives a dead holder only by some seconds. A message that does
not get it is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Protocol

import redis

from worker.attempts.run import current_attempt
from worker.errors import LeaseTaken
from worker.ground.logs import get_logger
from worker.ground.texts import shown
from worker.loops.thread_pool import cancel_requested, run_in_thread_pool
from worker.server.connection import connect
from worker.server.scripts import Script
from worker.settings import Settings
from worker.threads.os_threads import new_condition, new_lock, start_thread

logger = get_logger(__name__)

TRY_AGAIN = (2.0, 6.0)
"""The range of seconds after which a message that did not get its lease is tried again."""

_ACQUIRE = Script("acquire")
_RENEW = Script("renew")
_RELEASE = Script("release")


def lease(name: str) -> Lease:
    """A lease of this name, for `with` and `async with`, inside an attempt or outside a worker.

    Args:
        name: The name of the work that must not happen twice at once, such as `merge:42`.

    Raises:
        TypeError: The name is no text, or empty.
        LeaseTaken: On entry, if another message has the lease. Let it pass: the message is retried in some seconds,
            which does not count against its retry budget, and the event names the other message.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"lease({shown(repr(name))}): write the name of the work, such as 'merge:42'")
    return Lease(name)


class LeaseStore(Protocol):
    """The store of leases."""

    def acquire(self, name: str, owner: str, fence: int) -> str | None:
        """Takes the lease, also if the owner has it already; returns the other owner that has it, or None."""

    def release(self, name: str, owner: str, fence: int) -> None:
        """Releases the lease, unless another owner has it."""


class Lease(AbstractContextManager["Lease"], AbstractAsyncContextManager["Lease"]):
    """A context manager that holds a lease; for one use."""

    def __init__(self, name: str) -> None:
        self.name = name
        attempt = current_attempt()
        self._owner = uuid.uuid4().hex if attempt is None else attempt.message_id
        self._fence = 0 if attempt is None else attempt.fence
        self._lock = new_lock()
        self._has_it = False

    def __enter__(self) -> Lease:
        holder = _store().acquire(self.name, self._owner, self._fence)
        if holder is not None:
            raise LeaseTaken(self.name, holder, timedelta(seconds=random.uniform(*TRY_AGAIN)))  # noqa: S311 - jitter
        self._has_it = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._release()

    async def __aenter__(self) -> Lease:
        with self._released_if_cancelled():
            return await run_in_thread_pool(self._enter_for_somebody)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._released_if_cancelled():
            await run_in_thread_pool(self._release)

    def _enter_for_somebody(self) -> Lease:
        self.__enter__()
        if cancel_requested():
            self._release()
        return self

    @contextlib.contextmanager
    def _released_if_cancelled(self) -> Iterator[None]:
        """Releases the lease if taking it was cancelled; otherwise it would be renewed for ever.

        The call in the thread pool may have ended, or may never have begun.
        """
        try:
            yield
        except asyncio.CancelledError:
            start_thread(self._release, "lease-release")
            raise

    def _release(self) -> None:
        with self._lock:
            has_it, self._has_it = self._has_it, False
        if has_it:
            _store().release(self.name, self._owner, self._fence)


class _ServerLeases:
    """Leases on the server; a thread renews them while there are any."""

    def __init__(self) -> None:
        settings = Settings.in_force()
        self._client = connect(settings)
        self._seconds = settings.lease.total_seconds()
        self._changed = new_condition()
        self._held: dict[tuple[str, str, int], int] = {}
        self._thread: threading.Thread | None = None

    def acquire(self, name: str, owner: str, fence: int) -> str | None:
        holder: bytes | None = _ACQUIRE.run(self._client, [name, owner, fence, self._milliseconds])
        if holder is not None:
            return holder.decode()
        with self._changed:
            key = name, owner, fence
            self._held[key] = self._held.get(key, 0) + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="task-leases", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return None

    def release(self, name: str, owner: str, fence: int) -> None:
        key = name, owner, fence
        with self._changed:
            self._held[key] -= 1
            if self._held[key]:
                return  # this attempt has taken it more than once: the outermost context releases it
            del self._held[key]
        try:
            _RELEASE.run(self._client, [name, owner, fence])
        except (redis.RedisError, OSError) as error:
            logger.warning("a lease is left to expire", lease=name, error=str(error))

    @property
    def _milliseconds(self) -> int:
        return round(self._seconds * 1000)

    def _renew(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                self._changed.wait_for(lambda: not self._held, self._seconds / 4)
                held = list(self._held)
            for name, owner, fence in held:
                try:
                    if not _RENEW.run(self._client, [name, owner, fence, self._milliseconds]):
                        logger.error("a lease was lost while it was held", lease=name, owner=owner)
                except (redis.RedisError, OSError) as error:
                    logger.warning("a lease cannot be renewed", lease=name, error=str(error))


class LocalLeases:
    """Leases in this process only; for tests."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._held: dict[str, tuple[str, int]] = {}

    def acquire(self, name: str, owner: str, fence: int) -> str | None:
        """Takes the lease, also if the owner has it already; returns the other owner that has it, or None."""
        del fence
        with self._lock:
            holder, times = self._held.get(name, (owner, 0))
            if holder != owner:
                return holder
            self._held[name] = owner, times + 1
            return None

    def release(self, name: str, owner: str, fence: int) -> None:
        """Releases the lease."""
        del fence
        with self._lock:
            _, times = self._held.pop(name)
            if times > 1:
                self._held[name] = owner, times - 1


_default: LeaseStore | None = None
_default_lock = new_lock()


def _store() -> LeaseStore:
    global _default
    with _default_lock:
        if _default is None:
            _default = _ServerLeases()
        return _default


@contextlib.contextmanager
def leases_kept_in(store: LeaseStore) -> Iterator[None]:
    """Keeps leases in this store until the block ends; for tests."""
    global _default
    before, _default = _default, store
    try:
        yield
    finally:
        _default = before


def _forget() -> None:
    # A forked child has none of its parent's threads and connections.
    global _default, _default_lock
    _default, _default_lock = None, new_lock()


os.register_at_fork(after_in_child=_forget)
