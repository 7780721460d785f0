"""The bridge from sync code to async services, as users import it; the code is in `worker.loops`.

Neither this module nor its imports may use Dramatiq or Redis.
"""

from __future__ import annotations

from worker.loops.bridge import ForeignInterruptsWarning, run_async_in_new_loop, run_async_in_shared_loop
from worker.loops.loop_resources import close_loop_resources, loop_resource
from worker.loops.overruns import overruns
from worker.loops.shared_loop import stop_shared_loop
from worker.loops.thread_pool import cancel_requested, run_in_thread_pool

__all__ = [
    "ForeignInterruptsWarning",
    "cancel_requested",
    "close_loop_resources",
    "loop_resource",
    "overruns",
    "run_async_in_new_loop",
    "run_async_in_shared_loop",
    "run_in_thread_pool",
    "stop_shared_loop",
]
