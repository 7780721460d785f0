"""Up to how many messages the command line changes without asking, and which these are."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from tests.support.brokers import own_broker
from worker.cli.actions import act
from worker.errors import ConfigurationError
from worker.history.filters import MessageFilter
from worker.history.query import ask, state_counts
from worker.operations import actions
from worker.operations.actions import ASK_ABOVE, Preview
from worker.server.client import RedisClient
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

EVERYTHING = MessageFilter()


@pytest.fixture
def idle(
    settings: Settings, valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dramatiq.Actor[[], None]]:
    """An actor whose messages nobody runs."""
    monkeypatch.setattr("worker.cli.options.configure_logs", lambda level, form: None)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    with own_broker(settings):

        @dramatiq.actor
        def nothing() -> None: ...

        yield nothing


def cancel(*, yes: bool = False) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        act("cancel", EVERYTHING, dry_run=False, yes=yes, as_json=False)


def test_ten_messages_are_changed_without_asking_and_eleven_are_not(
    client: RedisClient, idle: dramatiq.Actor[[], None]
) -> None:
    """Of eleven the complaint says how many and what to do."""
    for _ in range(ASK_ABOVE):
        idle.send()
    cancel()
    assert ask(client, state_counts()) == {"cancelled": 10}
    for _ in range(ASK_ABOVE + 1):
        idle.send()
    with pytest.raises(ConfigurationError, match="11 messages: add --yes"):
        cancel()
    assert ask(client, state_counts()) == {"cancelled": 10, "queued": 11}
    cancel(yes=True)
    assert ask(client, state_counts()) == {"cancelled": 21}


def test_without_asking_only_what_was_counted_is_changed(
    client: RedisClient, idle: dramatiq.Actor[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not what matches the filter by then."""
    real = actions.preview

    def preview(*arguments: Any, **options: Any) -> Preview:
        found = real(*arguments, **options)
        for _ in range(20):
            idle.send()
        return found

    monkeypatch.setattr(actions, "preview", preview)
    idle.send()
    cancel()
    assert ask(client, state_counts()) == {"cancelled": 1, "queued": 20}
