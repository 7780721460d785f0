"""A sender of the soak, a program of its own: it notes what the server has acknowledged, and how that must end.

Arguments: the scene's folder, the address of the server, a number for what is drawn, seconds between two messages.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import dramatiq

from tests.support.runners import RUNNERS, named
from worker.broker import create_broker
from worker.broker.streams import StreamBroker
from worker.broker.terms import Terms
from worker.errors import ServerUnreachable
from worker.operations.actions import cancel
from worker.settings import Settings

R = TypeVar("R")

KEYS = 5
CANCELLED_AFTER = 0.5
HOUR_MS = 3_600_000


class Kind(NamedTuple):
    """What is sent, and the states in which it may end."""

    actor: str
    args: tuple[object, ...]
    ends: str
    weight: int
    how: str = ""


KINDS = (
    Kind("work", (5,), "completed", 20),
    Kind("mixed", ("completed", 20), "completed", 10),
    Kind("mixed", ("skipped", 1), "skipped", 5),
    Kind("mixed", ("retried", 1), "completed", 8),
    Kind("mixed", ("snoozed", 300), "completed", 5),
    Kind("mixed", ("dead", 1), "dead", 5),
    Kind("fails", (), "dead", 4),
    Kind("limited", (), "completed", 2),
    Kind("blocks", (0.15,), "completed", 1),
    Kind("plain", (0.01,), "completed", 8),
    Kind("few", (50,), "completed", 4),
    Kind("reports", (25,), "completed", 2),
    Kind("once", ("open",), "completed,dead", 4),
    Kind("gated", ("never",), "cancelled", 4, "cancelled"),
    Kind("work", (50,), "completed", 6, "unique"),
    Kind("work", (1,), "completed", 10, "delayed"),
)
OF_ONE_RUNNER = {"few", "plain", "reports"}


class Sender:
    """Sends until the scene has a file `stop`, each message until it is acknowledged."""

    def __init__(self, folder: Path, url: str, seed: int) -> None:
        broker = create_broker(Settings.model_validate({"redis_url": url, "data_dir": folder}))
        assert isinstance(broker, StreamBroker)
        self._broker = broker
        self._folder = folder
        self._random = random.Random(seed)
        self._to_cancel: deque[tuple[float, str]] = deque()
        self._ledger = (folder / f"sent-{seed}").open("a", buffering=1)

    def run(self, pause: float) -> None:
        while not (self._folder / "stop").exists():
            self._send(self._random.choices(KINDS, [kind.weight for kind in KINDS])[0])
            self._cancel(before=time.monotonic() - CANCELLED_AFTER)
            time.sleep(pause)
        self._cancel(before=time.monotonic())
        self._broker.close()

    def _send(self, kind: Kind) -> None:
        name = kind.actor if kind.actor in OF_ONE_RUNNER else named(kind.actor, self._random.choice(RUNNERS))
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name="default", actor_name=name, args=kind.args, kwargs={}, options={}, message_id=str(uuid.uuid4())
        )
        delay = self._random.randint(1, 3_000) if kind.how == "delayed" else None
        key = f"key-{self._random.randrange(KEYS)}"

        def enqueue() -> dramatiq.Message[Any]:
            if kind.how == "unique":
                return self._broker.enqueue_many([message], Terms(key=key, ttl_ms=HOUR_MS))[0]
            return self._broker.enqueue(message, delay=delay)

        answer, tries = surely(enqueue)
        if answer.message_id != message.message_id:
            return  # another has its unique key
        self._ledger.write(f"{message.message_id} {kind.ends} {tries} {kind.how or '-'}\n")
        if kind.how == "cancelled":
            self._to_cancel.append((time.monotonic(), message.message_id))

    def _cancel(self, *, before: float) -> None:
        ids = []
        while self._to_cancel and self._to_cancel[0][0] <= before:
            ids.append(self._to_cancel.popleft()[1])
        if ids:
            surely(lambda: cancel(self._broker.client, ids, by="soak"))


def surely(act: Callable[[], R]) -> tuple[R, int]:
    """Its answer, and how many tries it took until the server had heard."""
    tries = 1
    while True:
        try:
            return act(), tries
        except ServerUnreachable:
            tries += 1
            time.sleep(0.05)


if __name__ == "__main__":
    Sender(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run(float(sys.argv[4]))
