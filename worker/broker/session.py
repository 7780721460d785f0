"""The session of a worker process: its lease, its held messages, and its threads that take, store and renew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import redis
from dramatiq.broker import Broker
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.attempts.run import AttemptRun
from worker.attempts.running import RunningAttempts
from worker.broker.commits import Commit
from worker.broker.committer import Committer
from worker.broker.envelope import FREED_AT_START, priority_of
from worker.broker.farewell import Farewell
from worker.broker.fitness import actor_for
from worker.broker.heartbeat import Heartbeat, Runners
from worker.broker.holdings import Holdings
from worker.broker.reader import Reader
from worker.broker.room import Runner
from worker.broker.runners import runner_of, told_name
from worker.broker.standing import Standing
from worker.broker.taken import Ending, TakenMessage, end_of, waiting_of
from worker.errors import UnfitArguments, UnknownActor, WorkerError
from worker.ground.logs import get_logger
from worker.ground.secrets import mask_secrets
from worker.history.events import State, StatusEvent, UsualEvent
from worker.history.limits import history_limits
from worker.history.lines import to_line
from worker.loops.overruns import overruns
from worker.loops.shared_loop import shared_loop_blocked
from worker.loops.thread_pool import pool
from worker.server.client import RedisClient
from worker.server.keys import THREAD
from worker.server.scripts import Argument, Script
from worker.settings import Settings

logger = get_logger(__name__)

FLUSH_TIMEOUT = 5.0
"""Seconds for storing ends when the process ends."""

SILENCE = 7.5
"""Seconds after which a connection without an answer is closed; the reader waits at the server for five."""

MOST_NAMED = 200
"""The most attempts that a heartbeat names."""

_STOP_TIMEOUT = 2.0
_GIVE_BACK = Script("give_back")
_SET_ASIDE = Script("set_aside")


class WorkerSession:
    """A worker process at its server, from its first consumer to its shutdown.

    Args:
        settings: The settings of the process.
        connect: Makes clients; each thread has its own.
        broker: The broker with the known actors.
        runners: The runners of the process by their names.
        running: The attempts that run in this process.

    Attributes:
        closing: Set when the taking has ended.
        farewell: The news for the server that this process was told to end.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], RedisClient],
        broker: Broker,
        runners: Mapping[str, Runner],
        running: RunningAttempts,
    ) -> None:
        self._broker = broker
        self._runners = runners
        self._running = running
        self._clients = [connect() for _ in range(5)]
        self._client, for_heartbeat, for_reader, for_committer, for_farewell = self._clients
        lease_seconds = settings.lease.total_seconds()
        for one in (for_heartbeat, for_reader, for_committer, for_farewell):
            # These threads repeat requests themselves: a lost answer may have had messages, and they must know that.
            one.set_retry(Retry(NoBackoff(), 0))
            one.bound = SILENCE
            one.get_connection_kwargs()["socket_timeout"] = SILENCE
        # A silent connection must be given up before the lease ends.
        for_heartbeat.bound = max(1.0, lease_seconds / 2)
        limits = history_limits(settings)
        self._unknown_ms = round(settings.unknown_actor.total_seconds() * 1000)
        self.closing = threading.Event()
        self.holdings = Holdings(runners, self._admit)
        self.heartbeat = Heartbeat(
            for_heartbeat,
            seconds=lease_seconds,
            most_starts=settings.max_crashes,
            limits=limits,
            queues=lambda: self.holdings.queues,
            runners=self._describe_runners,
            lost=self.holdings.forget,
            about=self._about,
            obey=self._obey,
        )
        self.farewell = Farewell(lambda: self.heartbeat.tell_end(for_farewell))
        self._committer = Committer(self.heartbeat.token, for_committer, limits, self._stored)
        self._reader = Reader(
            for_reader,
            self.heartbeat,
            self.holdings,
            wait_for_room=self._committer.wait_for_room,
            give_back=self._return,
        )
        self.heartbeat.start()

    @property
    def standing(self) -> Standing:
        """The present state."""
        errors = (self.heartbeat.error, self._reader.error, self._committer.error)
        return Standing(
            errors=tuple(error for error in errors if error is not None),
            lease_held=self.heartbeat.is_held,
            ends_waiting=self._committer.ends_waiting,
            events_dropped=self._committer.dropped,
            ends_refused=self._committer.refused,
        )

    def open_queue(self, queue: str) -> None:
        """Takes the queue's messages too."""
        if self.holdings.open_queue(queue):
            self._reader.rouse(self._client)

    # ------------------------------------------------------------------ what becomes of a message

    def begin(self, message: TakenMessage, run: AttemptRun) -> bool:
        """Begins an attempt; False if another process has the message now, or it was cancelled.

        It waits while the lease is not held, and for a begin that must be stored.
        """
        while (may := self.may_begin(message)) is None:
            time.sleep(0.05)
        return may and (not self.take_begin(message, run) or self.is_begin_stored(message))

    def may_begin(self, message: TakenMessage) -> bool | None:
        """Whether the message's attempt may begin now; None as long as this is not known."""
        if message.epoch != self.heartbeat.epoch or self.holdings.is_cancelled(message):
            return False
        if self.heartbeat.is_held:
            return True
        return None if self.holdings.is_open() else False

    def take_begin(self, message: TakenMessage, run: AttemptRun, started: UsualEvent | None = None) -> bool:
        """Takes the begin of an attempt, to be stored soon; True if it must be stored before the attempt goes on.

        It must if a process that had the message has died, if the message runs at most once, or if its begin frees its
        unique key: the key must be free before it reads what it works on.

        Args:
            message: The message.
            run: Its attempt.
            started: The event STARTED, if the attempt has a context of its own.
        """
        message.run = run
        self._committer.take(Commit(message, started=True, events=[] if started is None else [started]))
        return message.losses > 0 or message.at_most_once or FREED_AT_START in message.options

    def is_begin_stored(self, message: TakenMessage) -> bool:
        """Waits until the server has stored the begin of an attempt; False if it does not: the message goes back."""
        while not self._committer.flush(1.0):
            if not self.holdings.is_open():
                message.run = None
                # The server may store the begin yet: this end goes with it, or after it.
                event = end_of(message, State.CANCELLED, "shutdown, before it had begun")
                self._committer.take(Commit(message, events=[event], ending=Ending(event, given_back=True)))
                self.holdings.ended(message)
                return False
        if not message.start_is_stored:
            message.run = None
            self.give_back([message])  # the server has refused the begin: another process may have the message
        return message.start_is_stored and message.epoch == self.heartbeat.epoch

    def record(self, message: TakenMessage, event: StatusEvent) -> None:
        """Takes an event of an attempt that runs here."""
        self._committer.take(Commit(message, events=[event]))

    def end(self, message: TakenMessage, *, rejected: bool) -> None:
        """Takes the end of an attempt, to be stored soon."""
        if message.ended:
            return  # it went back: its begin was not stored
        begun = message.run is not None
        if not begun and self.holdings.is_cancelled(message):
            self.give_back([message])  # the server has its end already: only the entry goes
            return
        if message.epoch != self.heartbeat.epoch or not (begun or rejected or self.holdings.is_open()):
            # Another process has it now, or it goes back with the rest: there is nothing to record.
            if begun:
                self._committer.refuse(message.message_id)
            self.holdings.ended(message)
            return
        ending = message.ending or Ending()
        ending.rejected = rejected
        if ending.event is None:
            # No middleware has recorded it: what it raised may have kept them from being told.
            has_failed = rejected or message._exception is not None  # noqa: SLF001 - where Dramatiq puts it
            state, text = (State.FAILED, "dead letter") if has_failed else (State.COMPLETED, "")
            ending.event = end_of(message, state, text)
        # The room is made before the end is stored: then the reader looks for it.
        self.holdings.ended(message)
        self._committer.take(Commit(message, started=begun, events=[ending.event], ending=ending))

    def give_back(self, messages: Sequence[TakenMessage]) -> None:
        """Gives back messages that were not begun."""
        try:
            self._return(messages)
        except (redis.RedisError, OSError, WorkerError) as error:
            # Other processes take over when the lease ends.
            logger.warning("messages could not be given back", count=len(messages), error=str(error))

    def flush(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds until all earlier facts are stored; False if they are not."""
        return self._committer.flush(timeout)

    # ------------------------------------------------------------------ its end

    def stop_taking(self) -> None:
        """Stops taking messages, and gives back those that no thread has begun."""
        self.farewell.say()
        self.closing.set()
        self.holdings.close()
        waiting = self.holdings.take_waiting()
        self._reader.stop(self._client, _STOP_TIMEOUT)
        self.give_back([*waiting, *self.holdings.take_waiting()])

    def close(self) -> None:
        """Ends the session: stores the waiting facts, and leaves the remaining messages to other processes."""
        self.stop_taking()
        self._committer.close(FLUSH_TIMEOUT)
        self.heartbeat.close()
        self.farewell.is_over = True
        for client in self._clients:
            client.close()

    # ------------------------------------------------------------------ what its threads ask of it

    def _about(self) -> dict[str, object]:
        """The description of this process in every heartbeat."""
        running = list(self._running)
        on_loop = sum(1 for run in running if isinstance(run.message, TakenMessage) and run.message.runner != THREAD)
        usage = pool().usage()
        standing = self.standing
        return {
            "threads": self._runners[THREAD].size,
            "threads_busy": len(running) - on_loop,
            "concurrency": sum(runner.size for name, runner in self._runners.items() if name != THREAD),
            "on_loop": on_loop,
            "loop_blocked": round(shared_loop_blocked(), 3),
            # Those that began first; the server knows all that run.
            "attempts": [[*_named(run), round(run.begun_at * 1000)] for run in running[:MOST_NAMED]],
            "ahead": max(0, len(self.holdings) - len(running)),
            "pool_busy": usage.busy,
            "pool_size": usage.size,
            "pool_waiting": usage.waiting,
            "overruns": overruns(),
            "events_dropped": standing.events_dropped,
            "ends_waiting": standing.ends_waiting,
            "errors": [mask_secrets(error) for error in standing.errors],
        }

    def _obey(self, action: str, what: str) -> None:
        """Carries out an order of a person, as far as it concerns this process."""
        if action != "cancel":
            # A queue was paused or resumed: the reader asks which. The lease's thread does not wait for it.
            threading.Thread(target=self._reader.rouse, args=(self._client,), name="rouse", daemon=True).start()
            return
        message_id, _, fence = what.rpartition(" ")
        # Say first, then look: docs/explanation/waking-without-a-lock.md. An attempt that begins is added, then looks.
        self.holdings.cancel(message_id, int(fence))
        run = self._running.get(message_id, int(fence))
        if run is not None:
            run.cancel()

    def _admit(self, message: TakenMessage) -> bool:
        """Prepares a message for the worker's queue; one that cannot run here is set aside."""
        message.keeper = self
        try:
            actor = actor_for(self._broker, message)
        except (UnknownActor, UnfitArguments) as error:
            message.stuff_exception(error)
            self._set_aside(message, error)
            return False
        message.actor_name = actor.actor_name  # it may have been sent under an old name
        message.runner = runner_of(actor, self._runners)
        message.priority = priority_of(message.options, actor)
        message.at_most_once = bool(actor.options.get("at_most_once"))
        return True

    def _set_aside(self, message: TakenMessage, why: WorkerError) -> None:
        """Leaves a message to processes that can run it, or makes it a dead letter if there were none for too long."""
        self.holdings.ended(message)
        self.holdings.stored(message)
        lines = [to_line(waiting_of(message, str(why))), to_line(end_of(message, State.FAILED, "dead letter"))]
        place: list[Argument] = [message.stream, message.entry, message.message_id, message.fence]
        try:
            [state] = _SET_ASIDE.run(self._client, [self._unknown_ms, *place, *lines])
        except (redis.RedisError, OSError, WorkerError) as error:
            # The reader later finds the message that it has without knowing.
            logger.warning("a message that cannot run here is not set aside yet", error=str(error))
            return
        if state == b"dead":
            logger.error("a message that no worker could run is a dead letter", id=message.message_id, why=str(why))
            message.fail()
            self._broker.emit_before("nack", message)
            self._broker.emit_after("nack", message)
        else:
            logger.warning("a message waits for a worker that can run it", id=message.message_id, why=str(why))

    def _return(self, messages: Sequence[TakenMessage]) -> None:
        arguments: list[Argument] = []
        for message in messages:
            waits = message.run is None and not message.ended
            self.holdings.ended(message)
            if waits:
                self.holdings.stored(message)
                arguments += [message.stream, message.entry, message.message_id, message.fence]
        if arguments:
            _GIVE_BACK.run(self._client, arguments)

    def _stored(self, commit: Commit) -> None:
        self.holdings.stored(commit.message)
        self._reader.room_was_made(self._client)

    def _describe_runners(self) -> Runners:
        actors = self._broker.actors.items()
        return Runners(
            tuple(self._runners), {told_name(name, actor): runner_of(actor, self._runners) for name, actor in actors}
        )


def _named(run: AttemptRun) -> tuple[str, str, int]:
    return run.attempt.message_id, run.attempt.actor, run.attempt.number
