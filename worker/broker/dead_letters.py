"""Dead letters: messages that failed for good; read, enqueued again and removed, each as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from worker.broker.envelope import decode, encode
from worker.errors import MessageRefused
from worker.history.events import State, StatusEvent
from worker.history.lines import to_line
from worker.history.query import StoredMessage, find_messages, read_message
from worker.scripts import RECORDS, Script

_REPLAY = Script(RECORDS, ("worker.broker.scripts", "replay.lua"))
_PURGE = Script(RECORDS, ("worker.broker.scripts", "purge.lua"))

# What Dramatiq and we note in a message while it runs.
_SPENT = ("retries", "traceback", "requeue_timestamp", "eta", "due_ms", "unique")


def dead_letters(client: redis.Redis) -> Iterator[StoredMessage]:
    """The dead letters, those enqueued last first: message, errors with tracebacks, attempts and times."""
    return find_messages(client, marks=("state:dead",))


def replay(client: redis.Redis, message_id: str) -> bool:
    """Enqueues a dead letter again: the same message, with a new retry budget; its history goes on.

    Returns:
        False if it is no dead letter (any more).

    Raises:
        MessageRefused: It is an entry that could not be read, which nobody can run.
    """
    stored = read_message(client, message_id)
    if stored is None or stored.state != "dead":
        return False
    try:
        message = decode(stored.payload)
    except ValueError as error:
        raise MessageRefused(f"{message_id} could not be read and cannot be run: purge it") from error
    for option in _SPENT:
        message.options.pop(option, None)
    event = StatusEvent(
        event=f"{stored.actor}.progress",
        state=State.PROGRESS,
        id=f"{message_id}:{stored.attempts}.replayed.{stored.fence}",
        message_id=message_id,
        actor=stored.actor,
        queue=stored.queue,
        attempt=stored.attempts,
        text="replayed",
    )
    return bool(_REPLAY.run(client, [message_id, encode(message, len(stored.payload)), to_line(event)]))


def purge(client: redis.Redis, message_id: str) -> bool:
    """Removes a dead letter and its history.

    Returns:
        False if it is no dead letter (any more).
    """
    return bool(_PURGE.run(client, [message_id]))
