"""Finds blocking code on an event loop: its place and its duration, while it blocks.

A loop turns: it runs all ready callbacks, then asks the kernel and sleeps. A turn that takes longer than
`WORKER_BLOCKING_THRESHOLD` is a stall. The loop itself records the begin and the end of each turn. A thread looks now
and then for a turn that takes too long, and records where that turn is stuck.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sysconfig
import threading
import time
import weakref
from collections import deque
from types import FrameType

from worker.errors import ConfigurationError
from worker.loops.account import Blocked
from worker.settings import Settings
from worker.threads.frames import frame_of
from worker.threads.greenlets import Lock, get_os_ident
from worker.threads.os_threads import new_lock, start_thread
from worker.threads.unpatched import unpatch

_KEPT = 100
"""The most stalls that are remembered of a loop, for the calls that still run on it."""

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
    """

    __slots__ = ("__weakref__", "_noted", "_stalls", "began", "thread_id", "threshold")

    def __init__(self, thread_id: int, threshold: float) -> None:
        self.thread_id = thread_id
        self.threshold = threshold
        self.began = 0.0  # while the loop sleeps
        self._noted: tuple[float, str] = (0.0, "")
        self._stalls: deque[tuple[float, float, str]] | None = None

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
            if self._stalls is None:
                self._stalls = deque(maxlen=_KEPT)
            self._stalls.append((began, now - began, self._where(began)))

    def look(self) -> None:
        """Records the place of the thread, if its turn takes too long."""
        began = self.began
        if began and time.monotonic() - began >= self.threshold and (frame := frame_of(self.thread_id)) is not None:
            where = _place(frame)
            # If the turn has ended meanwhile, the stack belongs to another turn.
            if self.began == began:
                self._noted = began, where

    def stop(self) -> Blocked | None:
        """Records the end of the last turn; returns the stalls, or None, and forgets them."""
        self.end()
        if self._stalls is None:
            return None
        found = self.since(0.0)
        self._stalls = None
        return found

    def since(self, moment: float) -> Blocked:
        """The stalls that ended after a moment of the monotonic clock, and the stall that still lasts."""
        found = Blocked()
        for began, took, where in self._stalls or ():
            if began + took > moment:
                found.add(took - max(0.0, moment - began), where)
        began = self.began
        if began and (took := time.monotonic() - max(began, moment)) >= self.threshold:
            found.add(took, self._where(began))
        return found

    def _where(self, began: float) -> str:
        noted, where = self._noted
        return where if noted == began else ""


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

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, threshold: float) -> None:
        super().__init__(thread_id, threshold)
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


def watch(loop: asyncio.AbstractEventLoop) -> Turns | None:
    """Watches a loop of this thread that does not report its turns, as long as the caller keeps the result.

    The result is None with `WORKER_BLOCKING=off`.
    """
    watchdog = _watchdog or _started()
    if watchdog is None:
        return None
    turns = _Heartbeat(loop, get_os_ident(), watchdog.threshold)
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
