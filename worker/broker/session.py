"""What a process is as a worker: its lease, what it holds, and the threads that take, store and keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dramatiq
import redis
from dramatiq.common import iter_queue
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.broker.committer import Committer, Note
from worker.broker.holdings import Holdings
from worker.broker.lease import Lease
from worker.broker.reader import Reader
from worker.broker.taken import Ending, TakenMessage
from worker.errors import WorkerError
from worker.ground.logs import get_logger
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.histogram import bucket
from worker.history.limits import history_limits
from worker.history.lines import subject_names, to_line
from worker.loops.calls import overruns
from worker.loops.thread_pool import pool
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
class Health:
    """How a worker process fares with its server.

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
        worker: Dramatiq's, in whose queue messages wait for its threads; `None`: there is none.
        cancel_attempt: Interrupts the attempt of a message that runs here.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], redis.Redis],
        worker: dramatiq.Worker | None,
        cancel_attempt: Callable[[str], None],
    ) -> None:
        self._worker = worker
        self._cancel_attempt = cancel_attempt
        self._clients = [connect() for _ in range(4)]
        self._client, for_lease, for_reader, for_committer = self._clients
        lease_seconds = settings.lease.total_seconds()
        for one in (for_lease, for_reader, for_committer):
            # These try again themselves: an answer that was lost may have brought messages, of which they must know.
            one.set_retry(Retry(NoBackoff(), 0))
            one.get_connection_kwargs()["socket_timeout"] = SILENCE
        # A connection that has fallen silent must not cost the lease; it is silent for a quarter of it anyway.
        for_lease.get_connection_kwargs()["socket_timeout"] = max(1.0, lease_seconds / 2)
        limits = history_limits(settings)
        self.holdings = Holdings(1 if worker is None else worker.worker_threads)
        self.lease = Lease(
            for_lease,
            seconds=lease_seconds,
            most_starts=settings.max_crashes,
            limits=limits,
            queues=lambda: self.holdings.queues,
            lost=self.holdings.forget,
            about=self._about,
            obey=self._obey,
        )
        self._committer = Committer(self.lease.token, for_committer, limits, self._stored)
        self._reader = Reader(
            for_reader,
            self.lease,
            self.holdings,
            wait_for_room=self._committer.wait_for_room,
            give_back=self._give_surplus_back,
        )
        self._entries: dict[tuple[str, int], tuple[str, str]] = {}
        self.lease.start()

    @property
    def health(self) -> Health:
        """How it fares now."""
        errors = (self.lease.error, self._reader.error, self._committer.error)
        return Health(
            errors=tuple(error for error in errors if error is not None),
            lease_held=self.lease.is_held,
            ends_waiting=self._committer.ends_waiting,
            events_dropped=self._committer.dropped,
            ends_refused=self._committer.refused,
        )

    def open_inbox(self, queue: str) -> None:
        """Has the queue's messages taken too."""
        if queue not in self.holdings.queues:
            self.holdings.open_inbox(queue)
            self._reader.rouse(self._client)

    def begin(self, message: TakenMessage) -> bool:
        """Notes that an attempt begins; False if the message is not ours any more.

        One that a process had before that died is begun only when the server knows that it has begun here.
        """
        while not self.lease.is_held and message.epoch == self.lease.epoch:
            if not self.holdings.is_open():
                return False
            time.sleep(0.05)
        if message.epoch != self.lease.epoch:
            return False
        message.begun_at = time.time()
        message.begun = True
        if message.cancelled:
            # Said before looking: who cancels it looks whether it has begun after that.
            message.begun = False
            return False
        self._committer.take(Note(message.message_id, message.fence, message.attempt, started=True))
        while message.redelivered and not self._committer.flush(1.0):
            if not self.holdings.is_open():
                # It did not run; whether it counts as begun is for whoever takes over.
                message.begun = False
                return False
        return message.epoch == self.lease.epoch

    def record(self, event: StatusEvent) -> None:
        """Takes an event of an attempt that runs here."""
        message = self.holdings.running(event.message_id or "")
        if message is not None and message.attempt == event.attempt:
            self._committer.take(
                Note(
                    message.message_id,
                    message.fence,
                    message.attempt,
                    lines=to_line(event),
                    subjects=subject_names(event.subject),
                )
            )

    def end(self, ending: Ending, *, rejected: bool) -> None:
        """Takes the end of an attempt, to be stored soon."""
        message = ending.message
        if message.cancelled and not message.begun:
            self.give_back([message])  # the server knows how it ended: only the entry goes
            return
        if message.epoch != self.lease.epoch or not (message.begun or rejected or self.holdings.is_open()):
            # Not ours any more, or goes back with the rest: nothing to say of it.
            if message.begun:
                self._committer.refuse(message.message_id)
            self.holdings.ended(message)
            return
        event = ending.event or _event_of(message, rejected=rejected)
        outcome = _outcome(ending, event, rejected=rejected)
        retry = ending.retry if outcome == "retry" else None
        errors = event.error.type if event.error is not None else ""
        end = [message.stream, message.entry, outcome, event.state.value, errors]
        end += [bucket(event.duration_ms), bucket(event.queued_ms)]
        end += ["" if event.blocked_ms is None else str(round(event.blocked_ms))]
        end += [retry.payload.decode(), str(retry.delay_ms)] if retry else ["", "-1"]
        end += [message.options.get("unique") or "", str(len(ending.follow_ups))]
        for one in ending.follow_ups:
            end += [one.message_id, one.payload.decode(), one.queue, one.lane, one.actor, str(one.delay_ms)]
        self._entries[message.message_id, message.fence] = message.stream, message.entry
        self._committer.take(
            Note(
                message.message_id,
                message.fence,
                message.attempt,
                started=message.begun,
                lines=to_line(event),
                subjects=subject_names(event.subject),
                end=end,
                may_lose_events=outcome in {"completed", "skipped"} and not ending.follow_ups,
            )
        )
        self.holdings.ended(message)

    def give_back(self, messages: Sequence[TakenMessage]) -> None:
        """Gives messages back that were not begun."""
        try:
            self._return(messages)
        except (redis.RedisError, OSError, WorkerError) as error:
            # Others take over when the lease ends.
            logger.warning("messages could not be given back", count=len(messages), error=str(error))

    def stop_taking(self) -> None:
        """Takes nothing more, and gives back what no thread has begun."""
        waiting = self.holdings.take_back()
        self._reader.stop(self._client, _STOP_TIMEOUT)
        self.give_back([*waiting, *self.holdings.take_back(), *self._take_from_worker()])

    def flush(self, timeout: float | None) -> bool:
        """Waits until everything that was taken before is stored, so many seconds at most; False if it is not."""
        return self._committer.flush(timeout)

    def close(self) -> None:
        """Ends: stores what is to be stored, and leaves the rest to others."""
        self.stop_taking()
        self._committer.close(FLUSH_TIMEOUT)
        self.lease.close()
        for client in self._clients:
            client.close()

    def _about(self) -> dict[str, object]:
        """What those who look at this process are told, with every heartbeat."""
        running = self.holdings.begun()
        usage = pool().usage()
        health = self.health
        return {
            "threads": 1 if self._worker is None else self._worker.worker_threads,
            "attempts": [[one.message_id, one.actor_name, one.attempt, round(one.begun_at * 1000)] for one in running],
            "ahead": max(0, len(self.holdings) - len(running)),
            "pool_busy": usage.busy,
            "pool_size": usage.size,
            "pool_waiting": usage.waiting,
            "overruns": overruns(),
            "events_dropped": health.events_dropped,
            "ends_waiting": health.ends_waiting,
            "errors": list(health.errors),
        }

    def _obey(self, action: str, what: str) -> None:
        """Does what somebody asks of all processes, as far as it is about this one."""
        if action != "cancel":
            # A queue is paused, or no more: the reader asks which. The lease's thread does not wait until it does.
            threading.Thread(target=self._reader.rouse, args=(self._client,), name="rouse", daemon=True).start()
            return
        message_id, _, fence = what.rpartition(" ")
        message = self.holdings.cancel(message_id, int(fence))
        if message is not None and message.begun:
            self._cancel_attempt(message_id)

    def _give_surplus_back(self, surplus: int) -> None:
        """Gives back the least urgent of what waits for a thread, so that other processes can run it."""
        # Nothing newer may be left before what is put back.
        waiting = [*self._take_from_worker(), *self.holdings.take_waiting()]
        kept = max(0, len(waiting) - surplus)
        self.holdings.put(waiting[:kept])
        # Where it fails, the reader looks for what it holds and does not know of.
        self._return(waiting[kept:])

    def _return(self, messages: Sequence[TakenMessage]) -> None:
        arguments: list[Argument] = []
        for message in messages:
            self.holdings.ended(message)
            if not message.begun:
                self.holdings.stored(message.stream, message.entry)
                arguments += [message.stream, message.entry, message.message_id, message.fence]
        if arguments:
            _GIVE_BACK.run(self._client, arguments)

    def _take_from_worker(self) -> list[TakenMessage]:
        """What waits in Dramatiq's own queue, the most urgent first."""
        waiting = []
        if self._worker is not None:
            for item in iter_queue(self._worker.work_queue):
                self._worker.work_queue.task_done()
                if isinstance(item.message, TakenMessage):
                    waiting.append(item.message)
        return waiting

    def _stored(self, note: Note) -> None:
        entry = self._entries.pop((note.message_id, note.fence), None)
        if entry is not None:
            self.holdings.stored(*entry)


def _outcome(ending: Ending, event: StatusEvent, *, rejected: bool) -> str:
    if rejected:
        return "dead"
    if ending.given_back:
        return "back"
    if ending.retry is not None:
        return "retry"
    if event.state is State.FAILED:
        return "dead"
    return event.state.value


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
