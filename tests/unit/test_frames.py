"""A look at another thread's frame never stops the process, whatever is collected meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading

from worker.threads.frames import frame_of

WITH_CALLBACKS = """
import gc, threading, time
from worker.threads.frames import frame_of

gc.callbacks.append(lambda phase, info: time.sleep(0))  # as coverage tools, metrics and finalizers do
gc.set_threshold(1)
until = time.monotonic() + 1

def start_threads():
    while time.monotonic() < until:
        one = threading.Thread(target=int)
        one.start()
        one.join()

starting = [threading.Thread(target=start_threads) for _ in range(4)]
for one in starting:
    one.start()
while time.monotonic() < until:
    assert frame_of(threading.get_ident()) is not None
for one in starting:
    one.join()
assert gc.isenabled()
"""


def test_a_collection_meanwhile_does_not_stop_the_process() -> None:
    """Also if a callback of the collector lets other threads run, and these start threads."""
    subprocess.run([sys.executable, "-c", WITH_CALLBACKS], check=True, timeout=60)


def test_a_thread_that_has_ended_has_no_frame() -> None:
    """None is the answer, and no error."""
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    assert ended.ident is not None
    assert frame_of(ended.ident) is None
