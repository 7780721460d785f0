"""Finds what blocks an event loop: how long, and where, while it happens.

A loop turns: it runs what is ready, then asks the kernel and sleeps. A turn that takes longer than
`WORKER_BLOCKING_THRESHOLD` is a stall. The loop itself notes when a turn begins and ends; a thread looks now and then
for a turn that takes too long, and notes the stack of the thread that is stuck in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import sysconfig
import threading
import time
import weakref
from collections import deque
from types import FrameType

from worker.errors import ConfigurationError
from worker.loops.account import Blocked
from worker.settings import settings_in_force
from worker.threads.greenlets import Lock, get_os_ident
from worker.threads.os_threads import new_lock, start_thread
from worker.threads.unpatched import unpatch

_KEPT = 100
"""Stalls of a loop that are remembered, for calls that are still on it."""

_LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    # Where `time.sleep` and locks are under gevent.
    unpatch.__code__.co_filename,
    Lock.acquire.__code__.co_filename,
)


class Turns:
    """The turns of one loop: written by its thread, read by the watchdog.

    Args:
        thread_id: Whose stack is looked at.
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
        """A turn begins: the loop has slept."""
        self.began = time.monotonic()

    def end(self) -> None:
        """A turn ends: the loop is about to sleep."""
        self.next()
        self.began = 0.0

    def next(self) -> None:
        """A turn ends and the next begins: the loop has no reason to sleep."""
        now, began = time.monotonic(), self.began
        self.began = now
        if began and now - began >= self.threshold:
            if self._stalls is None:
                self._stalls = deque(maxlen=_KEPT)
            self._stalls.append((began, now - began, self._where(began)))

    def look(self) -> None:
        """Notes where the thread is, if its turn takes too long."""
        began = self.began
        if began and time.monotonic() - began >= self.threshold and (frame := _frame_of(self.thread_id)) is not None:
            where = _place(frame)
            # The turn may have ended meanwhile: then the stack is another's.
            if self.began == began:
                self._noted = began, where

    def stop(self) -> Blocked | None:
        """The last turn ends; returns the stalls there were, if any, and forgets them."""
        self.end()
        if self._stalls is None:
            return None
        found = self.since(0.0)
        self._stalls = None
        return found

    def since(self, moment: float) -> Blocked:
        """The stalls that ended after a moment of the monotonic clock, the one that still lasts included."""
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


def _frame_of(thread_id: int) -> FrameType | None:
    return sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way


def _place(frame: FrameType) -> str:
    """The innermost place that is nobody's library, else the innermost."""
    inner: FrameType | None = frame
    while inner is not None and inner.f_code.co_filename.startswith(_LIBRARIES):
        inner = inner.f_back
    if inner is None or inner.f_globals.get("__name__", "").startswith("worker."):
        inner = frame
    return f"{inner.f_globals.get('__name__', '?')}:{inner.f_lineno} in {inner.f_code.co_name}"


class _Heartbeat(Turns):
    """The turns of a loop that does not tell (uvloop's): the time is watched that a callback waits for its turn."""

    __slots__ = ("_beating", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, threshold: float) -> None:
        super().__init__(thread_id, threshold)
        self._loop = loop
        self._beating = False

    def look(self) -> None:
        """Sends a beat, or notes where the thread is while the last one waits for too long."""
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
    """Looks at every loop of the process, twice in a threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.watched: weakref.WeakSet[Turns] = weakref.WeakSet()
        self._changes = new_lock()
        # The loops that a thread runs one after another are watched as one.
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
        """Begins to look at a loop, for as long as somebody else knows its turns."""
        with self._changes:
            self.watched.add(turns)


_watchdog: _Watchdog | None = None
_start = new_lock()


def start_watchdog() -> None:
    """Starts this process's watchdog, unless that was done, or `WORKER_BLOCKING=off`.

    Raises:
        ConfigurationError: The settings are refused.
    """
    if _watchdog is None:
        _started()


def watch_loops_of_this_thread() -> Turns | None:
    """Watches the loops that tell of their turns and that this thread runs; `None` where `WORKER_BLOCKING=off`."""
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
    """Watches a loop that does not tell, and that this thread runs, for as long as the result is kept."""
    watchdog = _watchdog or _started()
    if watchdog is None:
        return None
    turns = _Heartbeat(loop, get_os_ident(), watchdog.threshold)
    watchdog.add(turns)
    return turns


def _started() -> _Watchdog | None:
    global _watchdog
    settings = settings_in_force()
    if settings.blocking == "off":
        return None
    with _start:
        if _watchdog is None:
            if settings.blocking == "error":
                _refuse_blocking_calls()
            _watchdog = _Watchdog(settings.blocking_threshold.total_seconds())
        return _watchdog


def _refuse_blocking_calls() -> None:
    """Makes blocking calls in a running loop raise, in this process, from now on."""
    try:
        blockbuster = importlib.import_module("blockbuster")
    except ModuleNotFoundError as error:
        raise ConfigurationError("WORKER_BLOCKING=error needs blockbuster: pip install blockbuster") from error
    guard = blockbuster.BlockBuster()
    # A loop that has nothing to do sleeps on a lock.
    guard.functions["threading.Lock.acquire"].can_block_in("worker/loops/fresh_loop.py", {"nap"})
    guard.activate()


def _forget_watchdog() -> None:
    # A forked child does not have its parent's thread.
    global _watchdog, _start
    _watchdog, _start = None, new_lock()


os.register_at_fork(after_in_child=_forget_watchdog)
