"""Takes messages from the server for all queues of this process: one thread, which waits at the server."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Any

import redis

from worker.broker.envelope import decode
from worker.broker.heartbeat import Heartbeat, Term
from worker.broker.holdings import Holdings
from worker.broker.room import Room
from worker.broker.taken import TakenMessage
from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.lines import to_line
from worker.server.client import RedisClient
from worker.server.connection import streams_in
from worker.server.keys import LOST, PRIORITIES, SUSPECT
from worker.server.scripts import Argument, Script

logger = get_logger(__name__)

WAIT_MS = 5_000
"""Milliseconds that the reader waits at the server before it looks around."""

LOOK_AFTER = 0.25
"""Seconds between two checks for too many held messages, while the reader holds more than its runners run."""

LOOK_FOR_LOST_EVERY = 10.0
"""Seconds between two searches for lost messages; there is one after each failure too.

A network may deliver late what was sent before it failed.
"""

_ROUSE_EVERY = 0.005
_RETRY_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)

_TAKE = Script("take")
_LOOK = Script("look")
_BURY = Script("bury")


class Reader:
    """Fills the holdings.

    Args:
        client: A client of its own.
        heartbeat: The holder of the lease.
        holdings: The account of taken messages.
        wait_for_room: Waits at most the given seconds while no messages should be taken; False if that still holds.
        give_back: Gives back messages that were not begun.
    """

    def __init__(
        self,
        client: RedisClient,
        heartbeat: Heartbeat,
        holdings: Holdings,
        *,
        wait_for_room: Callable[[float], bool],
        give_back: Callable[[Sequence[TakenMessage]], None],
    ) -> None:
        self._client = client
        self._heartbeat = heartbeat
        self._holdings = holdings
        self._wait_for_room = wait_for_room
        self._give_back = give_back
        self._turns = itertools.count()
        self._connection_id: int | None = None
        self._looked_at = time.monotonic()
        self._roused = threading.Event()
        self._waits = False
        self._left_out: list[Room] = []
        self._allowed = self._holdings.suspects.allowed()
        self._places: dict[bytes, tuple[str, str]] = {}
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def rouse(self, others: RedisClient) -> None:
        """Wakes the reader, also while it waits at the server; `others` is a client that is free to ask."""
        self._roused.set()
        try:
            while self._waits and self._roused.is_set() and self._connection_id is not None:
                # It may be about to wait.
                if not others.client_unblock(self._connection_id):
                    time.sleep(_ROUSE_EVERY)
        except redis.RedisError as error:
            logger.info("the reader is not told to look around", error=str(error))

    def room_was_made(self, others: RedisClient) -> None:
        """Wakes the reader if it waits for some runners only, and one of the others has room again."""
        # Say first, then look: docs/explanation/waking-without-a-lock.md. The reader says that it waits, then looks.
        if self._waits and (any(room.free() for room in self._left_out) or self._may_take_more_suspects()):
            self.rouse(others)

    def stop(self, others: RedisClient, timeout: float) -> None:
        """Ends the thread, after the taking has ended."""
        self.rouse(others)
        self._thread.join(timeout)

    def _run(self) -> None:
        failures = 0
        while self._holdings.is_open():
            try:
                # Cleared before it reads the list of queues, because it is roused for a new one.
                self._roused.clear()
                if self._heartbeat.wait_until_held(1.0):
                    self._fill()
                failures = 0
                self._recovered()
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                if not self._holdings.is_open():
                    return
                self._failed(error, failures)
                failures += 1

    def _recovered(self) -> None:
        if self.error is not None:
            logger.info("messages are being taken again")
            self.error = None

    def _failed(self, error: Exception, failures: int) -> None:
        self.error = " ".join(str(error).split()) or type(error).__name__
        if "NOGROUP" in self.error:
            self._heartbeat.lose(self._heartbeat.term)
        if failures == 0:
            expected = isinstance(error, (redis.RedisError, OSError, WorkerError))
            logger.warning("no messages can be taken", error=self.error, exc_info=not expected)
        self._looked_at = -inf
        self._connection_id = None
        self._client.connection_pool.disconnect()
        threading.Event().wait(_RETRY_DELAYS[min(failures, len(_RETRY_DELAYS) - 1)])

    def _fill(self) -> None:
        term = self._heartbeat.term
        if self._connection_id is None:
            self._connection_id = int(self._client.client_id())
        if time.monotonic() - self._looked_at > LOOK_FOR_LOST_EVERY:
            self._look_for_lost(term)
            self._looked_at = time.monotonic()
        if surplus := self._holdings.surplus():
            self._give_back(surplus)
        room = self._holdings.wait_for_room(LOOK_AFTER)
        if not room or not self._wait_for_room(1.0):
            return
        queues = self._heartbeat.queues
        turn = next(self._turns) % len(queues)
        self._allowed = self._holdings.suspects.allowed()
        rooms: list[Argument] = [part for pair in room.items() for part in pair]
        answer = _TAKE.run(
            self._client, [term.token, *self._allowed, len(room), *rooms, *queues[turn:], *queues[:turn]]
        )
        if answer is None:
            self._heartbeat.lose(term)
            return
        _, paused, *described = answer
        if described:
            self._put(answer, term)
        else:
            self._wait([queue for queue in queues if queue.encode() not in paused], room, term)

    def _wait(self, queues: list[str], runners: Collection[str], term: Term) -> None:
        """Waits at the server, which gives the next message to one of the waiting readers."""
        if not queues:
            self._roused.wait(WAIT_MS / 1000)  # all are paused
            return
        milliseconds = self._patience()
        # Say first, then look: docs/explanation/waking-without-a-lock.md.
        self._left_out = [room for name, room in self._holdings.rooms.items() if name not in runners]
        self._waits = True
        try:
            if self._roused.is_set() or any(room.free() for room in self._left_out) or self._may_take_more_suspects():
                return
            left_out = [name for name, most in zip((SUSPECT, LOST), self._allowed, strict=True) if not most]
            priorities = [one for one in PRIORITIES if one not in left_out]
            streams: Any = dict.fromkeys(self._streams_of(queues, runners, priorities), ">")
            found: Any = self._client.xreadgroup("workers", term.token, streams, 1, milliseconds)
        finally:
            self._waits = False
        entries: list[Argument] = []
        for stream, given in streams_in(found):
            for entry, _ in given:
                entries += [stream, entry]
        if entries:
            self._put(_LOOK.run(self._client, [term.token, *entries]), term)

    def _patience(self) -> int:
        """Milliseconds for which the reader waits at the server."""
        if self._holdings.is_ahead():
            return round(LOOK_AFTER * 1000)
        changes_in = self._holdings.suspects.changes_in()
        return WAIT_MS if changes_in is None else min(WAIT_MS, round(changes_in * 1000) + 1)

    def _may_take_more_suspects(self) -> bool:
        """Whether priorities for which the reader does not wait are allowed again."""
        # Most processes hold none of them, and pay for this comparison alone.
        return 0 in self._allowed and any(
            more and not before for more, before in zip(self._holdings.suspects.allowed(), self._allowed, strict=True)
        )

    def _look_for_lost(self, term: Term) -> None:
        """Finds messages that the server gave to us in a lost answer, or for a request that reached it late."""
        streams = self._streams_of(self._heartbeat.queues, self._holdings.rooms)
        pipeline = self._client.pipeline(transaction=False)
        for stream in streams:
            pipeline.xpending_range(stream, "workers", "-", "+", 10_000, term.token)
        entries: list[Argument] = []
        for stream, pending in zip(streams, pipeline.execute(), strict=True):
            for one in pending:
                if not self._holdings.knows(stream, one["message_id"].decode()):
                    entries += [stream, one["message_id"]]
        if entries:
            self._put(_LOOK.run(self._client, [term.token, *entries]), term)

    def _put(self, answer: list[Any], term: Term) -> None:
        now, _, *described = answer
        messages = [self._read(now, one, term) for one in described]
        self._holdings.put([message for message in messages if message is not None])

    def _read(self, now: int, described: list[Any], term: Term) -> TakenMessage | None:
        """The message that the server describes, or None if it cannot be read: then it is made a dead letter."""
        stream, entry, message_id, fence, attempts, losses, since, payload = described
        try:
            message = decode(payload)
        except ValueError as error:
            self._bury(described, error)
            return None
        if message.message_id != message_id.decode():
            self._bury(described, ValueError(f"an entry of {len(payload)} bytes that names no message"))
            return None
        name, queue = self._place_of(stream)
        if message.queue_name != queue:
            # A change of the queue on the way to a retry does not move the message.
            message = message.copy(queue_name=queue)
        return TakenMessage(
            message,
            stream=name,
            entry=entry.decode(),
            fence=fence,
            attempt=attempts + 1,
            losses=losses,
            waited_ms=now - float(since),
            epoch=term.epoch,
            payload=payload,
        )

    def _bury(self, described: list[Any], error: ValueError) -> None:
        stream, entry, message_id, _, attempts, _, _, payload = described
        _, queue = self._place_of(stream)
        buried = message_id.decode() or uuid.uuid4().hex
        logger.error("an entry cannot be read and is a dead letter now", queue=queue, entry=entry, id=buried)
        event = StatusEvent(
            event="?.failed",
            state=State.FAILED,
            id=f"{buried}:{attempts + 1}.end",
            message_id=buried,
            queue=queue,
            actor="?",
            attempt=attempts + 1,
            text="dead letter",
            error=ErrorInfo(type(error).__name__, str(error), ""),
        )
        kept = json.dumps({"undecodable": base64.b64encode(payload).decode()})
        _BURY.run(self._client, [stream, entry, buried, queue, kept, to_line(event)])

    def _streams_of(
        self, queues: Sequence[str], runners: Iterable[str], priorities: Sequence[str] = PRIORITIES
    ) -> list[str]:
        """The streams of these queues, runners and priorities, the most urgent first."""
        names = self._client.namespace
        return [names.stream(queue, one, runner) for one in priorities for queue in queues for runner in runners]

    def _place_of(self, stream: bytes) -> tuple[str, str]:
        """The name of a stream, and its queue."""
        place = self._places.get(stream)
        if place is None:
            name = stream.decode()
            place = self._places[stream] = name, self._client.namespace.queue_of(name)
        return place
