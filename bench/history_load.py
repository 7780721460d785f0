"""The load for `bench/history.py`: a worker process that fills the history, or writes to it during the questions.

It works as every worker does: it sends, takes, begins and ends messages through `WorkerSession`, with the same scripts
and in the same groups; only the bodies of the actors are missing. The fate of a message follows from its number, so
that any process can run it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import queue
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import dramatiq
from dramatiq.brokers.stub import StubBroker

from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.broker.envelope import NOT_DELAYED, pack
from worker.broker.sending import Sender
from worker.broker.session import WorkerSession
from worker.broker.taken import Ending, TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.history.events import ErrorInfo, State, StatusEvent, WorkerId
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.settings import Settings

QUEUES = ("default", "cpu", "mail", "sync")
ACTORS = tuple(
    f"{verb}_{what}"
    for verb, what in (
        ("merge", "conversation"),
        ("summarize", "conversation"),
        ("index", "conversation"),
        ("send", "mail"),
        ("import", "contacts"),
        ("sync", "repository"),
        ("resize", "picture"),
        ("charge", "card"),
        ("export", "account"),
        ("notify", "phone"),
        ("scan", "upload"),
        ("repair", "index"),
    )
)
RARE_ACTOR = ACTORS[-1]
"""The actor of one message in 5,000."""

CONVERSATIONS = 20_000
TENANT = "acme"
SMALL_TENANT = "umbrella"
"""The large tenant has three messages in ten, this one five in a thousand."""

ERRORS = tuple(
    f"{module}.{name}"
    for module, names in {
        "httpx": ("ConnectError", "ReadTimeout", "RemoteProtocolError", "HTTPStatusError", "PoolTimeout"),
        "sqlalchemy.exc": ("OperationalError", "IntegrityError", "TimeoutError", "DataError"),
        "botocore.exceptions": ("ClientError", "EndpointConnectionError"),
        "project.errors": ("CorruptAudio", "TooLong", "QuotaExceeded", "UnknownLanguage", "NotReady"),
        "dramatiq": ("TimeLimitExceeded",),
        "json": ("JSONDecodeError",),
        "project.rare": ("Overflow", "Impossible"),
    }.items()
    for name in names
)
RARE_ERROR = ERRORS[-1]

AHEAD = 2_000
"""The most messages that wait while the history is filled."""

HELD = 64
"""Attempts that keep running during the questions."""

LIMIT = 10_000_000
SEND = 500
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
MAX_BYTES = 256 * 1024
TICK = 0.01


class Fate(NamedTuple):
    """The fate of a message.

    Attributes:
        actor: The message's actor.
        queue: The message's queue.
        subject: The message's subject.
        end: The state that ends its last attempt.
        fails_first: Whether an attempt fails before that.
        error: The error of a failed attempt.
        milliseconds: The duration of an attempt.
    """

    actor: str
    queue: str
    subject: dict[str, str]
    end: State
    fails_first: bool
    error: ErrorInfo
    milliseconds: float


def fate(number: int) -> Fate:
    """The fate of the message with this number."""
    some = _mixed(number)
    actor = len(ACTORS) - 1 if some % 5000 == 0 else int((len(ACTORS) - 1) * ((some >> 8) % 1000 / 1000) ** 2)
    more = _mixed(some)
    subject = {"conversation_id": str(more % CONVERSATIONS)}
    if (more >> 16) % 10 < 3:
        subject["tenant"] = TENANT
    elif (more >> 24) % 140 == 0:
        subject["tenant"] = SMALL_TENANT
    end, fails_first = _ends_how(_mixed(more) % 1000)
    error = int(len(ERRORS) * ((more >> 24) % 1000 / 1000) ** 3)
    milliseconds = 10.0 * (1 + actor) * math.exp(((some >> 20) % 1000 - 500) / 250)
    return Fate(ACTORS[actor], QUEUES[actor % 4], subject, end, fails_first, _errors[error], milliseconds)


def _mixed(number: int) -> int:
    number = (number ^ number >> 31) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return (number ^ number >> 29) * 0xBF58476D1CE4E5B9 >> 8 & 0xFFFFFFFFFFFF


def _ends_how(share: int) -> tuple[State, bool]:
    if share < 10:
        return State.FAILED, False
    if share < 40:
        return State.COMPLETED, True
    if share < 60:
        return State.SKIPPED, False
    return State.CANCELLED if share < 65 else State.COMPLETED, False


def _error(kind: str) -> ErrorInfo:
    line = '  File "/srv/app/project/services/conversations.py", line {0}, in step_{0}\n    await step_{0}(client)\n'
    frames = "".join(line.format(number) for number in range(10, 23))
    text = "the other side said no to what was asked of it"
    return ErrorInfo(kind, text, f"Traceback (most recent call last):\n{frames}{kind}: {text}\n")


_errors = [_error(kind) for kind in ERRORS]


class Load:
    """A worker process without actors.

    Args:
        settings: The settings that name the server.
        stamped: Whether the text of each event is the machine's monotonic clock at its recording.
    """

    def __init__(self, settings: Settings, *, stamped: bool = False) -> None:
        self.client = connect(settings)
        self._sender = Sender(self.client)
        self._stamped = stamped
        self._worker = WorkerId.here()
        # As many threads as attempts are held.
        self._waiting: WorkQueue[TakenMessage] = WorkQueue(2 * HELD)
        broker = StubBroker()
        for name in ACTORS:
            dramatiq.actor(lambda **_: None, actor_name=name, broker=broker)
        self._running = RunningAttempts()
        self._session = WorkerSession(settings, lambda: connect(settings), broker, self._waiting, self._running)
        self._held: list[TakenMessage] = []
        for name in QUEUES:
            self._session.open_queue(name)

    def send(self, numbers: Iterable[int]) -> None:
        """Sends messages."""
        send(self._sender, numbers)

    def hold(self, count: int) -> None:
        """Takes this many messages, whose attempts keep running."""
        while len(self._held) < count:
            for message in self._taken(count - len(self._held)):
                self._begin(message)
                self._held.append(message)
        self._session.flush(10)

    def run(self, most: int) -> int:
        """Runs at most this many taken messages; returns their number."""
        ran = 0
        for message in self._taken(most):
            self._begin(message)
            self._end(message)
            ran += 1
        return ran

    def close(self) -> None:
        """Ends the held attempts, and stores everything."""
        for message in self._held:
            self._end(message)
        self._session.flush(60)
        self._session.close()
        self.client.close()

    def _taken(self, most: int) -> Iterable[TakenMessage]:
        with contextlib.suppress(queue.Empty):
            while most > 0:
                message = self._waiting.get(timeout=0.0005)
                most -= 1
                yield message

    def _begin(self, message: TakenMessage) -> None:
        run = AttemptRun(message, message, number=message.attempt, fence=message.fence, queued_ms=0.0)
        self._running.add(run)
        message.begin(run)
        of = fate(message.kwargs["number"])
        message.record(self._event(message, of, State.STARTED, f"{message.message_id}:{message.attempt}"))

    def _end(self, message: TakenMessage) -> None:
        number = message.kwargs["number"]
        of = fate(number)
        fails = of.fails_first and message.attempt == 1
        state = State.FAILED if fails else of.end
        event = self._event(message, of, state, f"{message.message_id}:{message.attempt}.end")
        event.duration_ms, event.parent = of.milliseconds, f"{message.message_id}:{message.attempt}"
        event.error = of.error if state is State.FAILED else None
        message.ending = ending = Ending(event)
        if fails:
            again: dramatiq.Message[None] = dramatiq.Message(**message._message.asdict()).copy(options={"retries": 1})  # noqa: SLF001
            ending.retry = pack(again, MAX_BYTES)._replace(delay_ms=NOT_DELAYED)
        if message.run is not None:
            self._running.remove(message.run)
        self._session.end(message, rejected=state is State.FAILED and not fails)

    def _event(self, message: TakenMessage, of: Fate, state: State, id_: str) -> StatusEvent:
        return StatusEvent(
            event=f"{of.actor}.{state}",
            state=state,
            id=id_,
            time=datetime.now(UTC),
            actor=of.actor,
            queue=message.queue_name,
            message_id=message.message_id,
            attempt=message.attempt,
            subject=of.subject,
            text=str(time.monotonic_ns()) if self._stamped else "",
            queued_ms=message.queued_ms,
            worker=self._worker,
        )


def send(sender: Sender, numbers: Iterable[int], *, delayed: bool = False) -> None:
    """Sends the messages with these numbers; if `delayed`, each with another delay of some hours."""
    parcels = []
    for number in numbers:
        of = fate(number)
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name=of.queue, actor_name=of.actor, args=(), kwargs={"number": number, **of.subject}, options={}
        )
        delay = HOUR_MS + number % 1000 * MINUTE_MS if delayed else None
        parcels.append(pack(message, MAX_BYTES, delay=delay))
    sender.send(parcels)


def depth(client: RedisClient, *states: str) -> int:
    """The number of messages in these states."""
    found = client.hmget("{worker}:states", *states)
    return sum(int(one or 0) for one in found)


def fill(load: Load, numbers: range) -> None:
    """Sends these messages, and runs messages until no message waits."""
    sent = numbers.start
    while True:
        if sent < numbers.stop and depth(load.client, "queued") < AHEAD:
            until = min(sent + SEND, numbers.stop)
            load.send(range(sent, until))
            sent = until
            continue
        ran = load.run(SEND)
        if sent == numbers.stop and ran == 0 and depth(load.client, "queued", "running") == 0:
            return


def write(load: Load, first: int, events_per_second: int) -> None:
    """Holds some attempts, and writes this many events per second until its standard input ends."""
    load.send(range(first, first + HELD))
    load.hold(HELD)
    print("ready", flush=True)
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    began, done, sent = time.monotonic(), 0, first + HELD
    while not ended.wait(TICK):
        due = int((time.monotonic() - began) * events_per_second / 2)
        if due > sent - first - HELD:
            until = first + HELD + due
            load.send(range(sent, until))
            sent = until
        done += load.run(due - done) if due > done else 0
    print(done / (time.monotonic() - began) * 2, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fill", "write"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--events", type=int, default=0, help="a second")
    parser.add_argument("--limit", type=int, default=LIMIT, help="most ended messages of each state that are kept")
    options = parser.parse_args()
    settings = Settings(data_dir=options.data, redis_url=None, history_limit=options.limit)
    load = Load(settings, stamped=options.what == "write")
    if options.what == "fill":
        fill(load, range(options.first, options.first + options.messages))
    else:
        write(load, options.first, options.events)
    load.close()


if __name__ == "__main__":
    main()
