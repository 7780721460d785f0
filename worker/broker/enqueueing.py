"""Sends messages on given terms with any broker: ours, or another that keeps as many of the terms as it can."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import dramatiq

from worker.broker.arguments import check_message, each_of
from worker.broker.in_loop import tell_if_in_loop
from worker.broker.sent import Sent, as_sent
from worker.broker.streams import StreamBroker
from worker.broker.terms import PLAIN_TERMS, Terms
from worker.broker.times import check_delay

R = TypeVar("R")


def send_all(
    broker: dramatiq.Broker, messages: Iterable[dramatiq.Message[R]], terms: Terms = PLAIN_TERMS
) -> list[Sent[R]]:
    """Enqueues messages; one message that has no more than a delay is treated as by the broker's `enqueue`.

    Dramatiq's own brokers have no keys, and remember no ids: there, every message is enqueued.

    Raises:
        MessageRefused: A message is not plain JSON, or is too large.
        ServerUnreachable: The server did not answer.
        TypeError: An actor cannot be called with a message's arguments, or one is no message.
    """
    if isinstance(broker, StreamBroker):
        return broker.enqueue_many(each_of(messages), terms)
    return [enqueue_elsewhere(broker, message, terms.delay()) for message in each_of(messages)]


def enqueue_elsewhere(broker: dramatiq.Broker, message: dramatiq.Message[R], delay: int | None = None) -> Sent[R]:
    """Enqueues a message on a broker other than ours, with the same check of its arguments."""
    tell_if_in_loop()
    check_message(broker, message)
    if delay is not None:
        check_delay(delay)
    if message.queue_name not in broker.get_declared_queues():
        broker.declare_queue(message.queue_name)
    return as_sent(broker.enqueue(message, delay=delay))
