"""What a process is as a worker: its lease, what it holds, and the threads that take, store and keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis
from dramatiq.broker import Broker
from dramatiq.errors import ActorNotFound
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.broker.commits import Commit
from worker.broker.committer import Committer
from worker.broker.heartbeat import Heartbeat, Runners
from worker.broker.holdings import Holdings
from worker.broker.reader import Reader
from worker.broker.taken import Ending, TakenMessage
from worker.broker.work_queue import WorkQueue
from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.limits import history_limits
from worker.loops.calls import overruns
from worker.loops.thread_pool import pool
from worker.server.client import RedisClient
from worker.server.keys import THREAD
from worker.server.scripts import Argument, Script
from worker.settings import Settings

logger = get_logger(__name__)

FLUSH_TIMEOUT = 5.0
"""Seconds that ends get to be stored when the process ends."""

SILENCE = 7.5
"""Seconds after which a connection without an answer is given up; the reader waits at the server for five."""

_STOP_TIMEOUT = 2.0
_GIVE_BACK = Script("give_back")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a worker process stands with its server.

    Attributes:
        errors: What goes wrong now; empty: nothing.
        lease_held: Whether what it has taken is certainly its own.
        ends_waiting: Ends of attempts that are not stored yet.
        events_dropped: STARTED and progress events, and in a shortage of memory others, that were not kept.
        ends_refused: Ends that came too late: the message had gone to another process.
    """

    errors: tuple[str, ...]
    lease_held: bool
    ends_waiting: int
    events_dropped: int
    ends_refused: int


class WorkerSession:
    """A worker process at its server, from its first consumer to its shutdown.

    Args:
        settings: What it runs with.
        connect: Makes clients; each thread has its own.
        broker: Its actors are known here.
        waiting: The queue from which its worker threads take.
        running: The attempts that run in this process.

    Attributes:
        closing: Set when nothing more is taken.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], RedisClient],
        broker: Broker,
        waiting: WorkQueue[TakenMessage],
        running: RunningAttempts,
    ) -> None:
        self._broker = broker
        self._threads = waiting.threads
        self._running = running
        self._clients = [connect() for _ in range(4)]
        self._client, for_heartbeat, for_reader, for_committer = self._clients
        lease_seconds = settings.lease.total_seconds()
        for one in (for_heartbeat, for_reader, for_committer):
            # These try again themselves: an answer that was lost may have brought messages, of which they must know.
            one.set_retry(Retry(NoBackoff(), 0))
            one.get_connection_kwargs()["socket_timeout"] = SILENCE
        # A connection that has fallen silent must not cost the lease; it is silent for a quarter of it anyway.
        for_heartbeat.get_connection_kwargs()["socket_timeout"] = max(1.0, lease_seconds / 2)
        limits = history_limits(settings)
        self.closing = threading.Event()
        self.holdings = Holdings(waiting, self._admit)
        self.heartbeat = Heartbeat(
            for_heartbeat,
            seconds=lease_seconds,
            most_starts=settings.max_crashes,
            limits=limits,
            queues=lambda: self.holdings.queues,
            runners=lambda: Runners((THREAD,), dict.fromkeys(self._broker.actors, THREAD)),
            lost=self.holdings.forget,
            about=self._about,
            obey=self._obey,
        )
        self._committer = Committer(self.heartbeat.token, for_committer, limits, self._stored)
        self._reader = Reader(
            for_reader,
            self.heartbeat,
            self.holdings,
            wait_for_room=self._committer.wait_for_room,
            give_back=self._give_surplus_back,
        )
        self.heartbeat.start()

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        errors = (self.heartbeat.error, self._reader.error, self._committer.error)
        return Standing(
            errors=tuple(error for error in errors if error is not None),
            lease_held=self.heartbeat.is_held,
            ends_waiting=self._committer.ends_waiting,
            events_dropped=self._committer.dropped,
            ends_refused=self._committer.refused,
        )

    def open_queue(self, queue: str) -> None:
        """Has the queue's messages taken too."""
        if self.holdings.open_queue(queue):
            self._reader.rouse(self._client)

    # ------------------------------------------------------------------ what becomes of a message

    def begin(self, message: TakenMessage, run: AttemptRun) -> bool:
        """Notes that an attempt begins; False: the message is not ours any more, or was cancelled.

        One that a process had before that died is begun only when the server knows that it has begun here.
        """
        while not self.heartbeat.is_held and message.epoch == self.heartbeat.epoch:
            if not self.holdings.is_open():
                return False
            time.sleep(0.05)
        if message.epoch != self.heartbeat.epoch or self.holdings.is_cancelled(message):
            return False
        message.run = run
        self._committer.take(Commit(message, started=True))
        while message.redelivered and not self._committer.flush(1.0):
            if not self.holdings.is_open():
                # It did not run; whether it counts as begun is for whoever takes over.
                message.run = None
                return False
        return message.epoch == self.heartbeat.epoch

    def record(self, message: TakenMessage, event: StatusEvent) -> None:
        """Takes an event of an attempt that runs here."""
        self._committer.take(Commit(message, events=[event]))

    def end(self, message: TakenMessage, *, rejected: bool) -> None:
        """Takes the end of an attempt, to be stored soon."""
        begun = message.run is not None
        if not begun and self.holdings.is_cancelled(message):
            self.give_back([message])  # the server knows how it ended: only the entry goes
            return
        if message.epoch != self.heartbeat.epoch or not (begun or rejected or self.holdings.is_open()):
            # Not ours any more, or goes back with the rest: nothing to say of it.
            if begun:
                self._committer.refuse(message.message_id)
            self.holdings.ended(message)
            return
        ending = message.ending or Ending()
        ending.rejected = rejected
        ending.event = ending.event or _event_of(message, rejected=rejected)
        self._committer.take(Commit(message, started=begun, events=[ending.event], ending=ending))
        self.holdings.ended(message)

    def give_back(self, messages: Sequence[TakenMessage]) -> None:
        """Gives messages back that were not begun."""
        try:
            self._return(messages)
        except (redis.RedisError, OSError, WorkerError) as error:
            # Others take over when the lease ends.
            logger.warning("messages could not be given back", count=len(messages), error=str(error))

    def flush(self, timeout: float | None) -> bool:
        """Waits until everything that was taken before is stored, so many seconds at most; False if it is not."""
        return self._committer.flush(timeout)

    # ------------------------------------------------------------------ its end

    def stop_taking(self) -> None:
        """Takes nothing more, and gives back what no thread has begun."""
        self.closing.set()
        self.holdings.close()
        waiting = self.holdings.take_waiting()
        self._reader.stop(self._client, _STOP_TIMEOUT)
        self.give_back([*waiting, *self.holdings.take_waiting()])

    def close(self) -> None:
        """Ends: stores what is to be stored, and leaves the rest to others."""
        self.stop_taking()
        self._committer.close(FLUSH_TIMEOUT)
        self.heartbeat.close()
        for client in self._clients:
            client.close()

    # ------------------------------------------------------------------ what its threads ask of it

    def _about(self) -> dict[str, object]:
        """What those who look at this process are told, with every heartbeat."""
        running = list(self._running)
        usage = pool().usage()
        standing = self.standing
        return {
            "threads": self._threads,
            "attempts": [[*_named(run), round(run.begun_at * 1000)] for run in running],
            "ahead": max(0, len(self.holdings) - len(running)),
            "pool_busy": usage.busy,
            "pool_size": usage.size,
            "pool_waiting": usage.waiting,
            "overruns": overruns(),
            "events_dropped": standing.events_dropped,
            "ends_waiting": standing.ends_waiting,
            "errors": list(standing.errors),
        }

    def _obey(self, action: str, what: str) -> None:
        """Does what somebody asks of all processes, as far as it is about this one."""
        if action != "cancel":
            # A queue is paused, or no more: the reader asks which. The lease's thread does not wait until it does.
            threading.Thread(target=self._reader.rouse, args=(self._client,), name="rouse", daemon=True).start()
            return
        message_id, _, fence = what.rpartition(" ")
        # Say first, then look: docs/explanation/waking-without-a-lock.md. An attempt that begins is added, then looks.
        self.holdings.cancel(message_id, int(fence))
        run = self._running.get(message_id, int(fence))
        if run is not None:
            run.cancel()

    def _admit(self, message: TakenMessage) -> bool:
        """Makes a message ready for the worker's queue; that of an unknown actor is a dead letter."""
        message.keeper = self
        try:
            message.priority = self._broker.get_actor(message.actor_name).priority
        except ActorNotFound as error:
            logger.error("no actor of that name: the message is a dead letter", actor=message.actor_name)  # noqa: TRY400
            message.stuff_exception(error)
            message.fail()
            self._broker.emit_before("nack", message)
            self.end(message, rejected=True)
            self._broker.emit_after("nack", message)
            return False
        return True

    def _give_surplus_back(self, surplus: int) -> None:
        """Gives back the least urgent of what waits for a thread, so that other processes can run it."""
        # Nothing newer may be left before what is put back.
        waiting = self.holdings.take_waiting()
        kept = max(0, len(waiting) - surplus)
        self.holdings.put_back(waiting[:kept])
        # Where it fails, the reader looks for what it holds and does not know of.
        self._return(waiting[kept:])

    def _return(self, messages: Sequence[TakenMessage]) -> None:
        arguments: list[Argument] = []
        for message in messages:
            self.holdings.ended(message)
            if message.run is None:
                self.holdings.stored(message)
                arguments += [message.stream, message.entry, message.message_id, message.fence]
        if arguments:
            _GIVE_BACK.run(self._client, arguments)

    def _stored(self, commit: Commit) -> None:
        self.holdings.stored(commit.message)


def _named(run: AttemptRun) -> tuple[str, str, int]:
    return run.attempt.message_id, run.attempt.actor, run.attempt.number


def _event_of(message: TakenMessage, *, rejected: bool) -> StatusEvent:
    """The end of an attempt that nobody has recorded: its actor is unknown here, or no middleware does it."""
    state = State.FAILED if rejected else State.COMPLETED
    error = message._exception  # noqa: SLF001 - where Dramatiq puts it
    return StatusEvent(
        event=f"{message.actor_name}.{state.value}",
        state=state,
        id=f"{message.message_id}:{message.attempt}.end",
        message_id=message.message_id,
        actor=message.actor_name,
        queue=message.queue_name,
        attempt=message.attempt,
        text="dead letter" if rejected else "",
        error=ErrorInfo.of(error) if error is not None else None,
    )
