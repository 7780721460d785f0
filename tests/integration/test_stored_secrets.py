"""No secret of a text is on the server, whoever wrote the text and on whichever way it came there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import own_broker
from tests.support.stored import stored
from tests.support.waiting import wait_until
from tests.support.workers import working
from worker import Fatal, ProcessingStatusContext
from worker.attempts import spans
from worker.history import writer
from worker.history.filters import MessageFilter
from worker.history.overview import audit_log
from worker.history.query import ask, one_message
from worker.operations.actions import pause, replay
from worker.operations.audit import SYNC, audit
from worker.server.client import RedisClient
from worker.settings import Settings

URL = "postgresql://me:hunter2@db/0"
KEY = "sk-hunter2hunter2hunter2"


@pytest.fixture(params=["streams", "redis-lists"])
def broker(
    request: pytest.FixtureRequest, settings: Settings, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dramatiq.Broker]:
    """Each broker, whose events take different ways; the process's writer is made anew, for this server."""
    monkeypatch.setattr(writer, "_default", None)
    quick = {"broker": request.param, "min_backoff": timedelta(milliseconds=1), "max_retries": 0}
    with own_broker(settings.model_copy(update=quick)) as made:
        yield made
        writer.default_writer().close(5)


def everything_on(client: RedisClient) -> bytes:
    """All that the server keeps, as bytes."""
    server: Any = client
    return b"\n".join(kept for key in server.scan_iter() for kept in _parts(server, key))


def _parts(client: Any, key: bytes) -> Iterator[bytes]:
    kind = client.type(key)
    yield key
    if kind == b"string":
        yield client.get(key) or b""
    elif kind == b"hash":
        yield from client.hgetall(key).keys()
        yield from client.hvals(key)
    elif kind == b"stream":
        for _, fields in client.xrange(key):
            yield from fields.keys()
            yield from fields.values()
    elif kind == b"zset":
        yield from client.zrange(key, 0, -1)
    elif kind == b"set":
        yield from client.smembers(key)
    elif kind == b"list":
        yield from client.lrange(key, 0, -1)


def test_no_text_of_an_attempt_brings_a_secret_to_the_server(
    broker: dramatiq.Broker, client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of its begin, its progress, a span, its error, the error's cause, nor its subject."""
    monkeypatch.setattr(spans, "PROGRESS_EVERY", 0)

    @dramatiq.actor
    def told() -> None:
        with ProcessingStatusContext("told", f"begins with {URL}", source=URL) as context:
            context.progress(1, 2, f"Authorization: Bearer {KEY}")
            with ProcessingStatusContext("inner", "password=hunter2") as inner:
                inner.set_exit_message(f'{{"api_key": "{KEY}"}}')
            try:
                raise LookupError(f"token='{KEY}'")
            except LookupError as error:
                raise Fatal(f"cannot reach {URL}") from error

    message = told.send()
    with working(broker, threads=1):
        wait_until(
            lambda: (found := ask(client, one_message(message.message_id))) is not None and found.state == "dead"
        )
    found = stored(client, message.message_id)
    assert "hunter2" not in everything_on(client).decode("utf-8", "replace")
    assert [event.text for event in found.events][:3] == [
        "begins with postgresql://me:***@db/0",
        "Authorization: ***",
        "password=***",
    ]
    error = found.events[-1].error
    assert error is not None
    assert error.text == "cannot reach postgresql://me:***@db/0"
    assert "LookupError: token='***'" in error.traceback


def test_no_action_of_a_person_brings_a_secret_to_the_server(broker: dramatiq.Broker, client: RedisClient) -> None:
    """Neither their name nor what they named is kept with one in it."""

    @dramatiq.actor(queue_name="slow")
    def idle() -> None: ...

    idle.send()
    if broker.__class__.__name__ == "StreamBroker":
        pause(client, "slow", by=f"me:{URL}")
        assert ask(client, audit_log())[0].by == "me:postgresql://me:***@db/0"
    replay(client, MessageFilter(subject={"source": URL}), by="me password=hunter2")
    replay(client, [f"{URL}"], by="me password=hunter2")
    audit(client, SYNC, URL, ["an id"], by="me password=hunter2")
    assert b"hunter2" not in everything_on(client)
