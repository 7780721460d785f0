"""A sender that goes on whatever happens to the server."""

from __future__ import annotations

import random
import threading
from collections import Counter

from tests.support.runners import RUNNERS
from tests.support.scene import Scene
from tests.support.waiting import TIMEOUT

BECOMES = {
    "completed": "completed",
    "skipped": "skipped",
    "retried": "completed",
    "snoozed": "completed",
    "dead": "dead",
}
OUTCOMES = tuple(BECOMES)
SEED = 20_251


class Load:
    """Sends messages of all kinds to both runners, some of them delayed, until it is told to end.

    It goes on while the server is away.
    """

    def __init__(self, opened: Scene, pause: float) -> None:
        self._scene = opened
        self._pause = pause
        self._random = random.Random(SEED)
        self._ended = threading.Event()
        self.sent: list[str] = []
        self.expected: Counter[str] = Counter()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> list[str]:
        """Stops; the ids of all that it has sent."""
        self._ended.set()
        self._thread.join(TIMEOUT)
        if self._error is not None:
            raise self._error
        return self.sent

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._pause):
                outcome = self._random.choice(OUTCOMES)
                delay = self._random.choice([None, None, self._random.randint(1, 3_000)])
                takes, runner = self._random.randint(0, 40), self._random.choice(RUNNERS)
                self.sent.append(self._scene.send_surely("mixed", outcome, takes, delay=delay, runner=runner))
                self.expected[BECOMES[outcome]] += 1
        except BaseException as error:  # noqa: BLE001 - raised where it ends
            self._error = error
