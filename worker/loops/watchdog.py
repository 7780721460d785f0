"""Finds blocking code on an event loop: its place and its duration, while it blocks.

A loop turns: it runs all ready callbacks, then asks the kernel and sleeps. A turn that takes longer than
`WORKER_BLOCKING_THRESHOLD` is a stall. The loop itself records the begin and the end of each turn. A thread looks now
and then for a turn that takes too long, and records where that turn is stuck. On the shared loop it also records whose
task it is: the attempt that blocks the loop is charged, and not those that wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import os
import sysconfig
import threading
import time
import weakref
from collections.abc import Coroutine, Generator
from types import FrameType
from typing import Any, NamedTuple

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.loops.account import Account, Blocked, own_account
from worker.settings import Settings
from worker.threads.frames import frame_of
from worker.threads.greenlets import Lock, get_os_ident
from worker.threads.os_threads import new_lock, start_thread
from worker.threads.unpatched import unpatch

logger = get_logger(__name__)

_LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    # Under gevent, `time.sleep` and locks are in these files.
    unpatch.__code__.co_filename,
    Lock.acquire.__code__.co_filename,
)


class Turns:
    """The turns of one loop. The loop's thread writes them, the watchdog reads them.

    Args:
        thread_id: The loop's thread; the watchdog looks at its stack.
        threshold: Seconds that a turn may take.
        shared: The loop, if many attempts share it, or None.
    """

    __slots__ = (
        "__weakref__",
        "_charged_at",
        "_noted",
        "_shared",
        "_stalls",
        "_told",
        "began",
        "thread_id",
        "threshold",
    )

    def __init__(self, thread_id: int, threshold: float, shared: asyncio.AbstractEventLoop | None = None) -> None:
        self.thread_id = thread_id
        self.threshold = threshold
        self.began = 0.0  # while the loop sleeps
        self._shared = shared
        self._noted: _Note = _NOTHING
        self._stalls: Blocked | None = None
        self._charged_at = 0.0
        self._told = 0.0

    def begin(self) -> None:
        """Records the begin of a turn, after a sleep of the loop."""
        self.began = time.monotonic()

    def end(self) -> None:
        """Records the end of a turn, before a sleep of the loop."""
        self.next()
        self.began = 0.0

    def next(self) -> None:
        """Records the end of a turn and the begin of the next, without a sleep between them."""
        now, began = time.monotonic(), self.began
        self.began = now
        if began and now - began >= self.threshold:
            self._add_stall(began, now)

    def look(self) -> None:
        """Records the place of the thread, and the owner of its task, if its turn may become a stall."""
        began = self.began
        lasts = time.monotonic() - began
        # A stall is seen at least once, because the watchdog looks twice per threshold.
        if not began or lasts < self.threshold / 2 or (frame := frame_of(self.thread_id)) is None:
            return
        note = _Note(began, _place(frame), self._owner())
        # If the turn has ended meanwhile, the stack belongs to another turn.
        if self.began == began:
            self._noted = note
            self._tell(note, lasts)

    def lasts(self) -> float:
        """Seconds that the present turn has taken, if that is too long; else 0."""
        began = self.began
        seconds = time.monotonic() - began if began else 0.0
        return seconds if seconds >= self.threshold else 0.0

    def stop(self) -> Blocked | None:
        """Records the end of the last turn; returns the stalls of a loop that is not shared, or None."""
        self.end()
        found, self._stalls = self._stalls, None
        return found

    def charge(self, own: Account) -> None:
        """Charges the owner of a task that ends with the stall that still lasts, if it is this one's."""
        began, now = self.began, time.monotonic()
        if began and now - began >= self.threshold and self._noted.began == began and self._noted.owner is own:
            self._add_stall(began, now)

    def _add_stall(self, began: float, now: float) -> None:
        note = self._noted if self._noted.began == began else _NOTHING
        since = max(began, self._charged_at)
        if self._shared is None:
            if self._stalls is None:
                self._stalls = Blocked()
            self._stalls.add(now - since, since, note.where)
        elif note.owner is not None:
            note.owner.stalls().add(now - since, since, note.where)
            self._charged_at = now

    def _owner(self) -> Account | None:
        if self._shared is None:
            return None
        return getattr(asyncio.current_task(self._shared), OWNER, None)

    def _tell(self, note: _Note, lasts: float) -> None:
        """Logs a stall of the shared loop that lasts so long that its process may count as dead, once."""
        if self._shared is not None and self._told != note.began and lasts > Settings.in_force().lease.total_seconds():
            self._told = note.began
            actor, message_id = note.owner.owner if note.owner is not None else ("", "")
            logger.error(
                "the shared loop is blocked, and with it every async actor of this process",
                seconds=round(lasts, 1),
                at=note.where,
                actor=actor,
                message_id=message_id,
            )


class _Note(NamedTuple):
    """A look at a turn: its begin, the place where it was, and the owner of the running task."""

    began: float
    where: str
    owner: Account | None


_NOTHING = _Note(0.0, "", None)

OWNER = "owner"
"""The attribute of a task of the shared loop with the account of the attempt in which it was made."""


def own_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Marks each task that is made on a loop with the account of its attempt."""
    loop.set_task_factory(_owned_task)


def _owned_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: contextvars.Context | None = None,
    **options: Any,  # noqa: ANN401 - later versions of Python add some
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **options)
    setattr(task, OWNER, own_account(context))
    return task


def _place(frame: FrameType) -> str:
    """The innermost place outside of libraries, or else the innermost place."""
    inner: FrameType | None = frame
    while inner is not None and inner.f_code.co_filename.startswith(_LIBRARIES):
        inner = inner.f_back
    if inner is None or inner.f_globals.get("__name__", "").startswith("worker."):
        inner = frame
    return f"{inner.f_globals.get('__name__', '?')}:{inner.f_lineno} in {inner.f_code.co_name}"


class _Heartbeat(Turns):
    """The turns of a loop that does not report them (uvloop): measured by how long a callback waits for its turn."""

    __slots__ = ("_beating", "_loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread_id: int,
        threshold: float,
        shared: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(thread_id, threshold, shared)
        self._loop = loop
        self._beating = False

    def look(self) -> None:
        """Sends a beat; if the last beat has waited for too long, records the place of the thread."""
        if self._beating:
            super().look()
            return
        self._beating = True
        self.begin()
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        self.end()
        self._beating = False


class _Watchdog:
    """The thread that looks at every loop of the process, twice per threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.watched: weakref.WeakSet[Turns] = weakref.WeakSet()
        self._changes = new_lock()
        # All loops that a thread runs, one after another, share one record.
        self.of_thread = threading.local()
        start_thread(self._look, "watchdog")

    def _look(self) -> None:
        while True:
            time.sleep(self.threshold / 2)
            self._look_once()

    def _look_once(self) -> None:
        with self._changes:
            watched = list(self.watched)
        for turns in watched:
            turns.look()

    def add(self, turns: Turns) -> None:
        """Looks at a loop from now on, until no other object holds its turns."""
        with self._changes:
            self.watched.add(turns)


_watchdog: _Watchdog | None = None
_start = new_lock()


def start_watchdog() -> None:
    """Starts this process's watchdog; does nothing if it runs, or with `WORKER_BLOCKING=off`.

    Raises:
        ConfigurationError: A setting is not valid.
    """
    if _watchdog is None:
        _started()


def watch_loops_of_this_thread() -> Turns | None:
    """Watches the loops of this thread, which report their turns; None with `WORKER_BLOCKING=off`."""
    watchdog = _watchdog or _started()
    if watchdog is None:
        return None
    try:
        turns: Turns = watchdog.of_thread.turns
    except AttributeError:
        turns = watchdog.of_thread.turns = Turns(get_os_ident(), watchdog.threshold)
        watchdog.add(turns)
    return turns


def watch(loop: asyncio.AbstractEventLoop, *, shared: bool = False, reports: bool = False) -> Turns | None:
    """Watches a loop of this thread, as long as the caller keeps the result; None with `WORKER_BLOCKING=off`.

    Args:
        loop: The loop.
        shared: Whether many attempts share it: then each is charged with its own stalls.
        reports: Whether the loop reports its turns.
    """
    watchdog = _watchdog or _started()
    if watchdog is None:
        return None
    among = loop if shared else None
    if shared:
        own_tasks(loop)
    thread_id = get_os_ident()
    turns = (
        Turns(thread_id, watchdog.threshold, among)
        if reports
        else _Heartbeat(loop, thread_id, watchdog.threshold, among)
    )
    watchdog.add(turns)
    return turns


def _started() -> _Watchdog | None:
    global _watchdog
    settings = Settings.in_force()
    if settings.blocking == "off":
        return None
    with _start:
        if _watchdog is None:
            if settings.blocking == "error":
                _refuse_blocking_calls()
            _watchdog = _Watchdog(settings.blocking_threshold.total_seconds())
        return _watchdog


def _refuse_blocking_calls() -> None:
    """Makes each blocking call in a running loop raise an error, in this process, from now on."""
    try:
        blockbuster = importlib.import_module("blockbuster")
    except ModuleNotFoundError as error:
        raise ConfigurationError("WORKER_BLOCKING=error needs blockbuster: pip install blockbuster") from error
    guard = blockbuster.BlockBuster()
    # An idle loop sleeps on a lock.
    guard.functions["threading.Lock.acquire"].can_block_in("worker/loops/fresh_loop.py", {"nap"})
    guard.activate()


def _forget_watchdog() -> None:
    # A forked child does not have its parent's thread.
    global _watchdog, _start
    _watchdog, _start = None, new_lock()


os.register_at_fork(after_in_child=_forget_watchdog)
