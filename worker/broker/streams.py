"""A Dramatiq broker on Redis streams: consumer groups, leases, delays, dead letters.

Making a broker, and declaring actors and queues, opens no connection. A process that only sends has only a `Sender`. A
worker process (`dramatiq`) begins a `WorkerSession` when its first consumer asks for messages, after Dramatiq has
forked it.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dramatiq
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import current_millis
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware

from worker.attempts.run import current_run
from worker.attempts.running import RunningAttempts
from worker.attempts.runs import DUE_AT
from worker.attempts.subjects import sent_subjects
from worker.broker.arguments import check_message, no_message
from worker.broker.consumer import StreamConsumer
from worker.broker.envelope import FREED_AT_START, Parcel, pack, priority_of
from worker.broker.hooks import Hooks, ending_message
from worker.broker.in_loop import tell_if_in_loop
from worker.broker.room import Runner
from worker.broker.runners import expected_runner
from worker.broker.sending import Sender, sender
from worker.broker.sent import Sent, answered, tell_taken
from worker.broker.session import WorkerSession
from worker.broker.taken import Group, TakenMessage
from worker.broker.terms import PLAIN_TERMS, Terms
from worker.broker.times import FOREVER_MS, check_delay
from worker.ground.secrets import mask_secrets
from worker.server.client import RedisClient
from worker.server.scripts import Script
from worker.settings import Settings
from worker.threads.os_threads import new_lock

_JOIN_EVERY = 0.02

_LONGEST_TRACEBACK = 8_000
"""The most characters of a traceback in a message that is retried: the last ones, after secrets are masked."""

_WAITING = Script("waiting")
_FLUSH = Script("flush")


class StreamBroker(Hooks):
    """Keeps messages in streams of Redis 7 or Valkey.

    Args:
        settings: The settings of the process.
        client: A client for other data on the same server, such as rate limits.
        connect: Makes more clients, for senders and for a worker's threads.
        middleware: The middleware, as in Dramatiq.
        running: The attempts that run in this process, which the middleware begins and ends.
    """

    def __init__(
        self,
        settings: Settings,
        client: RedisClient,
        connect: Callable[[], RedisClient],
        middleware: list[Middleware],
        running: RunningAttempts,
    ) -> None:
        self._running = running
        self._settings = settings
        self._connect = connect
        self._sender = self._new_sender()
        self._session: WorkerSession | None = None
        self._session_lock = new_lock()
        self._was_told_to_end = False
        self._runners: Mapping[str, Runner] = {}
        self.client = client
        super().__init__(middleware=middleware)
        os.register_at_fork(after_in_child=self._forget_session)

    # ------------------------------------------------------------------ what Dramatiq asks of a broker

    def declare_queue(self, queue_name: str) -> None:
        """Declares a queue; there are no delay queues."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        """The consumer of a queue. The speed of attempts decides how many messages are taken ahead, not `prefetch`.

        Raises:
            QueueNotFound: The queue was not declared.
            RuntimeError: No worker was started that could run messages.
        """
        del prefetch
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        if not self._runners:
            raise RuntimeError(
                "messages go straight to the runners of a worker: start a dramatiq.Worker on this broker"
            )
        # The consumers of several queues start at the same time, each in its thread.
        with self._session_lock:
            if self._session is None:
                self._session = WorkerSession(self._settings, self._connect, self, self._runners, self._running)
            if self._was_told_to_end:
                self._session.farewell.say()
            return StreamConsumer(self._session, queue_name, timeout / 1000)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> Sent[Any]:
        """Enqueues a message in one round trip; or together with an attempt's end, if it follows from that.

        If a message with its id waits or runs, nothing is enqueued: the answer and the log tell it. But the message of
        the attempt in which this is called is stored at once, in its record, and is enqueued when it has ended, with
        all of its retries; a retry that enqueues it again replaces it.

        Args:
            message: The message, which keeps its id.
            delay: Milliseconds of its delay, or None.

        Raises:
            MessageRefused: The message is not plain JSON, or is too large.
            ServerUnreachable: The server did not answer.
            TypeError: The actor cannot be called with the message's arguments.
        """
        message = _own(message) if delay is None else _delayed(message, delay)
        ending = ending_message()
        if ending is None:
            tell_if_in_loop()
            check_message(self, message)
        self.emit_before("enqueue", message, delay)
        if ending is not None:
            self._add_to_end(ending, message, delay)
            return self._answer(message, delay)
        (in_the_way,) = self._sender.send([self._pack(message, delay)])
        return self._answer(message, delay, in_the_way)

    def enqueue_many(self, messages: Iterable[dramatiq.Message[Any]], terms: Terms = PLAIN_TERMS) -> list[Sent[Any]]:
        """Enqueues messages, hundreds in each round trip; all are encoded before the first is stored.

        Without a key, and where an id may be sent again, each is treated as by `enqueue`: messages that follow from an
        attempt's end are stored with it. Else nothing is enqueued for a message whose key another holds, or whose id
        was seen: the answer bears the id of the one that is in the way.

        Raises:
            MessageRefused: A message is not plain JSON, or is too large; none was enqueued.
            ServerUnreachable: The server did not answer; earlier messages are enqueued.
            TypeError: An actor cannot be called with a message's arguments; none was enqueued.
        """
        delay = terms.delay()
        if terms.is_plain and ending_message() is not None:
            return [self.enqueue(message, delay=delay) for message in messages]
        tell_if_in_loop()
        given, parcels = [], []
        for message in messages:
            one = _own(message) if terms.is_plain else _with_key(message, terms)
            if delay is not None:
                one = _delayed(one, delay)
            check_message(self, one)
            self.emit_before("enqueue", one, delay)
            given.append(one)
            parcels.append(self._pack_on(one, delay, terms))
        answers = self._sender.send(parcels)
        return [
            self._answer(one, delay, in_the_way, is_told=terms.once)
            for one, in_the_way in zip(given, answers, strict=True)
        ]

    def flush(self, queue_name: str) -> None:
        """Drops all messages that wait in a queue."""
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        while self._sender.call(_FLUSH, [queue_name]):
            pass

    def flush_all(self) -> None:
        """Drops all messages that wait in any declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Waits until no message of the queue waits, is delayed or runs, and all ends are stored.

        Raises:
            QueueJoinTimeout: It took longer than `timeout` milliseconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            if self._session is not None:
                self._session.flush(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not self._sender.call(_WAITING, [queue_name]):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(_JOIN_EVERY)

    def close(self) -> None:
        """Ends the session, if there is one, and closes the connections."""
        self.end_session()
        self._sender.close()
        self.client.connection_pool.disconnect()

    # ------------------------------------------------------------------ the worker's side

    @property
    def session(self) -> WorkerSession | None:
        """The session of this process, or None if it is not a worker."""
        return self._session

    def prepare(self, runners: Mapping[str, Runner]) -> None:
        """Takes the runners of a starting worker by their names."""
        self._runners = runners
        self._was_told_to_end = False

    def tell_end(self) -> None:
        """Tells the server that this process was told to end; a signal handler may call it."""
        # Say first, then look: docs/explanation/waking-without-a-lock.md. A session that begins is there, then looks.
        self._was_told_to_end = True
        if self._session is not None:
            self._session.farewell.say()

    @property
    def has_told_end(self) -> bool:
        """Whether the server knows that this process was told to end, or has nothing of it."""
        return self._session is None or self._session.farewell.is_over

    def end_session(self) -> None:
        """Stores the waiting facts, releases the lease, and ends the threads."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def give_back(self, message: MessageProxy) -> None:
        """Ends a message's attempt by putting the message back into its queue, because its worker ends."""
        if isinstance(message, TakenMessage) and message.ending is not None:
            message.ending.given_back = True

    def count_in_group(
        self, message: MessageProxy, group: str, ttl_ms: int, callbacks: list[dramatiq.Message[object]]
    ) -> None:
        """Counts the message when its end is stored, and enqueues the callbacks with that if it is the last."""
        if isinstance(message, TakenMessage) and message.ending is not None:
            for one in callbacks:
                self.emit_before("enqueue", one, None)
            message.ending.group = Group(group, ttl_ms, [self._pack(one, None) for one in callbacks])

    # ------------------------------------------------------------------ sending

    def _pack(
        self, message: dramatiq.Message[Any], delay: int | None, *, is_retry: bool = False, is_own: bool = True
    ) -> Parcel:
        # A retry makes a message longer; a message of the largest size must still be retried.
        most = sys.maxsize if is_retry else self._settings.max_message_bytes
        actor = self.actors.get(message.actor_name)
        subjects = sent_subjects(actor, message.args, message.kwargs)
        parcel = pack(message, most, priority=priority_of(message.options, actor), subjects=subjects, delay=delay)
        run = current_run.get()
        if is_own and run is not None and run.attempt.message_id == message.message_id:
            parcel = parcel._replace(fence=run.attempt.fence)
        return parcel

    def _pack_on(self, message: dramatiq.Message[Any], delay: int | None, terms: Terms) -> Parcel:
        if terms.is_plain:
            return self._pack(message, delay)
        # Of its own attempt too, it is another's: what runs after that would hold no key.
        return self._pack(message, delay, is_own=False)._replace(
            unique=terms.key,
            ttl_ms=terms.ttl_ms if terms.key else 0,
            until_start=int(bool(terms.key) and terms.until == "start"),
            seen_ms=round(self._settings.seen.total_seconds() * 1000) if terms.once else 0,
        )

    def _answer(
        self, message: dramatiq.Message[Any], delay: int | None, in_the_way: str = "", *, is_told: bool = False
    ) -> Sent[Any]:
        """The message as its sender gets it back; tells of a taken id, unless the sender asks for that."""
        if not in_the_way:
            self.emit_after("enqueue", message, delay)
        elif in_the_way == message.message_id and not is_told:
            tell_taken(message.message_id)
        return answered(message, in_the_way)

    def _add_to_end(self, taken: TakenMessage, message: dramatiq.Message[Any], delay: int | None) -> None:
        """Adds a message to the attempt's end from which it follows."""
        if taken.ending is None:
            return
        if (trace := message.options.get("traceback")) is not None:
            # Middleware and actors read it, as with Dramatiq's own broker; the whole is in the history.
            message.options["traceback"] = mask_secrets(str(trace)[-2 * _LONGEST_TRACEBACK :])[-_LONGEST_TRACEBACK:]
        if message.message_id == taken.message_id:
            taken.ending.retry = self._pack(taken.with_sent_arguments(message), delay, is_retry=True)
        else:
            taken.ending.follow_ups.append(self._pack(message, delay))

    def _new_sender(self) -> Sender:
        return sender(self._connect(), functools.partial(expected_runner, self))

    def _forget_session(self) -> None:
        # A forked child has none of its parent's threads and connections.
        self._session = None
        self._session_lock = new_lock()
        self._sender = self._new_sender()


def _with_key(message: dramatiq.Message[Any], terms: Terms) -> dramatiq.Message[Any]:
    own = _own(message)
    if not terms.key:
        return own
    return own.copy(options={"unique": terms.key} | ({FREED_AT_START: True} if terms.until == "start" else {}))


def _own(message: dramatiq.Message[Any] | MessageProxy) -> dramatiq.Message[Any]:
    """The message itself, because Dramatiq's retries pass a proxy.

    Raises:
        TypeError: It is no message.
    """
    if isinstance(message, dramatiq.Message):
        return message
    if not isinstance(message, MessageProxy):
        raise no_message(message)
    copied: dramatiq.Message[Any] = message.copy()
    return copied


def _delayed(message: dramatiq.Message[Any], delay: int) -> dramatiq.Message[Any]:
    """The message with its due time as an option, as Dramatiq's own brokers have it until it is due.

    Raises:
        TypeError: It is no message, or the delay is no number of milliseconds.
    """
    check_delay(delay)
    return _own(message).copy(options={DUE_AT: current_millis() + min(delay, FOREVER_MS)})
