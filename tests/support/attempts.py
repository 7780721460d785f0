"""What tests of interrupts share: an attempt in a thread of its own, and what came out of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from tests.support.waiting import wait_until
from worker.loops.interrupts import interrupt, interruptible
from worker.settings import put_in_force, settings_in_force


class Stop(BaseException):
    """What a time limit or a shutdown raises."""


class Attempt:
    """A thread that runs a body as Dramatiq's worker threads do, and what came out of it."""

    def __init__(self, body: Callable[[], object]) -> None:
        self.outcome: list[object] = []
        self.ended_at = 0.0
        self._body = interruptible(body)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome.append(self._body())
        except BaseException as error:  # noqa: BLE001 - what came out is what is tested
            self.outcome.append(error)
        self.ended_at = time.monotonic()
        # Nothing may hit the thread after its section, where Dramatiq acknowledges.
        for _ in range(100):
            time.sleep(0)

    def interrupt(self, exception: BaseException | None = None) -> float:
        """Interrupts it, and returns when."""
        assert self._thread.ident is not None
        ident = self._thread.ident
        stop = exception or Stop()
        wait_until(lambda: interrupt(ident, stop))
        return time.monotonic()

    def result(self) -> object:
        self._thread.join(10)
        assert not self._thread.is_alive()
        [outcome] = self.outcome
        return outcome


@pytest.fixture
def short_patience() -> Iterator[None]:
    before = settings_in_force()
    put_in_force(before.model_copy(update={"cleanup_timeout": timedelta(milliseconds=100)}))
    yield
    put_in_force(before)
