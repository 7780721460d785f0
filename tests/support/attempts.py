"""What tests of interrupts share: an attempt in a thread of its own, and what came out of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.broker import MessageProxy

from worker.attempts.run import AttemptRun
from worker.attempts.runs import as_body
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.testing import RecordedEvents

_numbers = itertools.count()


class Stop(BaseException):
    """What a time limit or a shutdown raises."""


def attempt_run(message_id: str = "", fence: int = 1) -> AttemptRun:
    """The run of an attempt, before its body begins."""
    message: dramatiq.Message[None] = dramatiq.Message("default", "a", (), {}, {}, message_id or f"m{next(_numbers)}")
    return AttemptRun(MessageProxy(message), RecordedEvents(), number=1, fence=fence, queued_ms=0.0)


class Attempt:
    """A thread that runs a body as Dramatiq's worker threads do, and what came out of it."""

    def __init__(self, body: Callable[[], object]) -> None:
        self.run = attempt_run()
        self.outcome: list[object] = []
        self.ended_at = 0.0
        self._body = as_body(body)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self.run.enter()
        try:
            self.outcome.append(self._body())
        except BaseException as error:  # noqa: BLE001 - what came out is what is tested
            self.outcome.append(error)
        self.ended_at = time.monotonic()
        # Nothing may hit the thread after its body, where Dramatiq acknowledges.
        for _ in range(100):
            time.sleep(0)
        self.run.leave()

    def interrupt(self, exception: BaseException | None = None) -> float:
        """Interrupts it, and returns when."""
        assert self.run.interrupt(exception or Stop())
        return time.monotonic()

    def result(self) -> object:
        self._thread.join(10)
        assert not self._thread.is_alive()
        [outcome] = self.outcome
        return outcome


@pytest.fixture
def short_patience() -> Iterator[None]:
    before = Settings.in_force()
    put_in_force(before.model_copy(update={"cleanup_timeout": timedelta(milliseconds=100)}))
    yield
    put_in_force(before)
