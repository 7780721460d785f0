"""Brokers that are the process's own until a block ends, on the server of their settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq import broker as dramatiq_broker

from worker import create_broker
from worker.broker.streams import StreamBroker
from worker.settings import Settings

AT_ONCE = {"min_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2)}
"""What fails is retried at once."""


@contextlib.contextmanager
def own_broker(settings: Settings) -> Iterator[dramatiq.Broker]:
    """A broker of either kind."""
    before = dramatiq_broker.global_broker
    broker = create_broker(settings)
    dramatiq.set_broker(broker)
    try:
        yield broker
    finally:
        broker.close()
        dramatiq_broker.global_broker = before


@contextlib.contextmanager
def stream_broker(settings: Settings, **changed: Any) -> Iterator[StreamBroker]:
    """A broker on streams, with some settings changed."""
    with own_broker(settings.model_copy(update=changed)) as broker:
        assert isinstance(broker, StreamBroker)
        yield broker
