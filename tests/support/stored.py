"""What the server keeps of one message."""

from __future__ import annotations

from worker.history.answers import StoredMessage
from worker.history.query import ask, one_message
from worker.server.client import RedisClient


def stored(client: RedisClient, message_id: str) -> StoredMessage:
    """A message that the server knows."""
    found = ask(client, one_message(message_id))
    assert found is not None
    return found


def state_of(client: RedisClient, message_id: str) -> str:
    """The state of a message that the server knows."""
    return stored(client, message_id).state


def event_states(client: RedisClient, message_id: str) -> list[str]:
    """The states of its events, oldest first."""
    return [event.state.value for event in stored(client, message_id).events]
