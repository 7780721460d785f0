"""What an interrupt leaves behind in its process: nothing."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED = """
import sys
import threading
import time

from tests.support.attempts import attempt_run

attempt = attempt_run()

class Stop(BaseException):
    pass

def body():
    while True:
        time.sleep(0.001)

def run():
    try:
        attempt.run_body(body)
    except Stop:
        print("interrupted", flush=True)

thread = threading.Thread(target=run, daemon=True)
thread.start()
attempt.interrupt(Stop())
thread.join()
sys.settrace(lambda *_: None)
(lambda: print("traced", flush=True))()
"""


def test_after_an_interrupt_a_tracer_can_be_used() -> None:
    """CPython 3.11 goes on for ever in the next call under a tracer if an exception was taken back in any thread."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == ["interrupted", "traced"]
