"""The frame that another thread runs.

Python looks at all threads under a lock of its own. A collection of garbage that begins meanwhile runs finalizers and
callbacks, which let other threads run; one of these may wait for that lock and never let this thread go on. So nothing
is collected meanwhile.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType

from worker.threads.os_threads import new_lock

_one_at_a_time = new_lock()


def frame_of(thread_id: int) -> FrameType | None:
    """The frame that the thread with this number of the system runs, or None if there is no such thread."""
    with _one_at_a_time:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way
        finally:
            if collects:
                gc.enable()
