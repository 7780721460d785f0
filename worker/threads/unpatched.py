"""Makes the modules that gevent patched work in OS threads too.

In the thread of a coroutine's loop or of a blocking call, `threading.Thread` must be a thread, `asyncio` needs real
sockets, and a lock must wake its waiters. `unpatch` does that, once a process; greenlets notice nothing.
"""

from __future__ import annotations

import _thread
import gc
import importlib.util
import queue
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from worker.errors import NotUnderGevent
from worker.threads.greenlets import Lock, in_os_thread, is_gevent, mark_os_thread, note_hub, original

PollSelector = selectors.PollSelector
DefaultSelector: type[selectors.BaseSelector] = selectors.DefaultSelector

if is_gevent():

    class _PollSelector(selectors.PollSelector):
        _selector_cls = original("select", "poll")

    PollSelector = _PollSelector  # type: ignore[misc]
    DefaultSelector = original("selectors", "DefaultSelector")

_unpatched = False


def unpatch() -> None:
    """Makes OS threads possible beside greenlets. A greenlet calls it; calls after the first do nothing."""
    global _unpatched
    note_hub()
    if _unpatched:
        return
    _unpatched = True
    _unpatch_threading()
    _unpatch_queue()
    _unpatch_asyncio()
    _unpatch_rest()


def start_os_thread(function: Callable[..., object], *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - passed on
    """Starts a real thread; at its end, the hub that gevent may have made for it is destroyed."""
    ident: int = original("_thread", "start_new_thread")(_run, (function, args, kwargs))
    return ident


def _run(function: Callable[..., object], args: Any, kwargs: Any) -> None:  # noqa: ANN401 - passed on
    mark_os_thread()
    try:
        function(*args, **kwargs)
    finally:
        hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if hub is not None:
            # The thread has waited through gevent: the hub's loop has open descriptors.
            hub.destroy(destroy_loop=True)


def _rebind(module: ModuleType, name: str, new: object) -> None:
    """Replaces a name of a module, also in the modules that have imported it by name."""
    old = getattr(module, name)
    for other in list(sys.modules.values()):
        kept = getattr(other, "__dict__", {})
        if kept.get(name) is old and not kept.get("__name__", "").startswith("gevent"):
            kept[name] = new


def _unpatch_threading() -> None:
    # One lock for both worlds; Condition, Semaphore, RLock, Event, Future and Queue are made of it.
    of_greenlets = threading.Lock
    _rebind(threading, "_allocate_lock", Lock)
    _rebind(threading, "Lock", Lock)
    _rebind(_thread, "allocate_lock", Lock)  # of which the import system makes its own
    _rebind(threading, "Event", original("threading", "Event"))
    _replace_existing_locks(of_greenlets)
    for name in ("_set_sentinel", "_ThreadHandle", "_make_thread_handle"):
        if hasattr(threading, name):
            setattr(threading, name, _by_thread(getattr(threading, name), original("threading", name)))
    if hasattr(threading, "_start_new_thread"):
        greenlets = threading._start_new_thread  # noqa: SLF001 - what gevent itself replaces
        threading._start_new_thread = _by_thread(greenlets, _start_new_thread)  # noqa: SLF001
        _keep_real_threads_out_of_greenlets()
    if hasattr(threading, "_start_joinable_thread"):
        _unpatch_joinable_threads()


def _replace_existing_locks(of_greenlets: Any) -> None:  # noqa: ANN401 - gevent's class
    """Replaces the locks made before, in modules, objects, loggers and `threading` itself, with locks for both worlds.

    A lock that is held now stays as it is.
    """
    objects: list[Any] = gc.get_objects()
    reentrant: Any = type(threading.RLock())
    for one in objects:
        if isinstance(one, reentrant) and one._owner is None:  # noqa: SLF001
            one._block = Lock()  # noqa: SLF001
    old = [one for one in objects if isinstance(one, of_greenlets) and not one.locked()]
    new = {id(one): Lock() for one in old}
    del objects
    for holder in gc.get_referrers(*old):
        names = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        for name, value in list(names.items()):
            if id(value) not in new:
                continue
            if isinstance(holder, threading.Condition):
                if not holder._waiters:  # type: ignore[attr-defined]  # noqa: SLF001
                    holder.__init__(new[id(value)])  # type: ignore[misc]  # it has taken the lock's methods
            elif isinstance(holder, dict):
                holder[name] = new[id(value)]
            else:
                setattr(holder, name, new[id(value)])


def _start_new_thread(function: Callable[..., object], args: Any = (), kwargs: Any = None) -> int:  # noqa: ANN401
    return start_os_thread(function, *args, **(kwargs or {}))


def _by_thread(in_greenlets: Callable[..., Any], in_threads: Callable[..., Any]) -> Callable[..., Any]:
    def choose(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        return (in_threads if in_os_thread() else in_greenlets)(*args, **kwargs)

    return choose


def _keep_real_threads_out_of_greenlets() -> None:
    # gevent's Thread learns of its end from its greenlet; Python itself reports the end of a thread.
    of_threads = original("threading", "Thread")._set_tstate_lock  # noqa: SLF001
    threading.Thread._set_tstate_lock = _by_thread(  # type: ignore[attr-defined]  # noqa: SLF001
        threading.Thread._set_tstate_lock,  # type: ignore[attr-defined]  # noqa: SLF001
        of_threads,
    )


def _unpatch_joinable_threads() -> None:
    """Starts real threads in Python 3.13 and later, where a handle belongs to a thread or to a greenlet."""
    greenlets = threading._start_joinable_thread  # type: ignore[attr-defined]  # noqa: SLF001
    threads = original("threading", "_start_joinable_thread")
    handle_of_threads = original("threading", "_ThreadHandle")

    def start(function: Callable[[], object], handle: Any = None, **options: Any) -> Any:  # noqa: ANN401 - passed on
        if isinstance(handle, handle_of_threads) or (handle is None and in_os_thread()):
            return threads(lambda: _run(function, (), {}), handle=handle, **options)
        return greenlets(function, handle=handle, **options)

    threading._start_joinable_thread = start  # type: ignore[attr-defined]  # noqa: SLF001

    # In a forked child, gevent calls a method on all threads that only its own handles have.
    hooks = sys.modules["gevent.threading"]._ForkHooks  # noqa: SLF001
    stop = hooks._stop_running_greenlets_in_child  # noqa: SLF001

    def stop_greenlets(self: Any) -> None:  # noqa: ANN401 - gevent's
        self._before_fork_active = {
            ident: thread
            for ident, thread in self._before_fork_active.items()
            if not isinstance(vars(thread).get("_handle", vars(thread).get("_os_thread_handle")), handle_of_threads)
        }
        stop(self)

    hooks._stop_running_greenlets_in_child = stop_greenlets  # noqa: SLF001


def _unpatch_queue() -> None:
    for name in ("Queue", "PriorityQueue", "LifoQueue"):
        _rebind(queue, name, original("queue", name))
    of_threads, of_greenlets = original("queue", "SimpleQueue"), queue.SimpleQueue

    class SimpleQueue(of_greenlets):  # type: ignore[misc, valid-type]
        # The standard queue is written in C and cannot use our lock: each queue serves the world it was made in.
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            return of_threads() if in_os_thread() else of_greenlets.__new__(cls, *args, **kwargs)

    _rebind(queue, "SimpleQueue", SimpleQueue)


def _unpatch_asyncio() -> None:
    """Gives asyncio real sockets and selectors, which do not use a hub."""
    real_socket = _copy(socket)
    real_selectors = ModuleType("selectors")
    real_selectors.__dict__.update(selectors.__dict__, PollSelector=PollSelector, DefaultSelector=DefaultSelector)
    for name, module in list(sys.modules.items()):
        if name.startswith("asyncio."):
            if getattr(module, "socket", None) is socket:
                module.socket = real_socket  # type: ignore[attr-defined]
            if getattr(module, "selectors", None) is selectors:
                module.selectors = real_selectors  # type: ignore[attr-defined]


def _copy(module: ModuleType) -> ModuleType:
    """A second, unpatched copy of a module of the standard library, made from its source."""
    name = f"_unpatched_{module.__name__}"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    if spec is None or spec.loader is None:
        return module
    sys.modules[name] = copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def _unpatch_rest() -> None:
    time.sleep = _by_thread(time.sleep, original("time", "sleep"))
    start = subprocess.Popen.__init__

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        if in_os_thread():
            self._child_created = False  # what its finalizer looks at
            raise NotUnderGevent(
                "a program cannot be started in an event loop or in the thread pool under gevent, which waits for "
                "child processes among its greenlets only: start it in the actor itself, or run `dramatiq` instead"
            )
        start(self, *args, **kwargs)

    subprocess.Popen.__init__ = refuse  # type: ignore[method-assign]
