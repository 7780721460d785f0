"""The actions of people on messages and queues: replay, purge, cancel, run now, pause, resume.

Each action is atomic for each message. The message's history and the audit log record it, with the person and the time.
From async code: `await run_in_thread_pool(cancel, client, …)`.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import redis

from worker.broker.envelope import FREED_AT_START, decode, encode
from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.ground.secrets import mask_secrets
from worker.ground.texts import shown
from worker.history.answers import StoredMessage
from worker.history.asked_with import check_text
from worker.history.events import WorkerId
from worker.history.filters import MessageFilter
from worker.history.overview import queues
from worker.history.query import all_messages, ask, count_messages, cursor_before, one_message
from worker.history.states import APPLIES_TO, Action
from worker.server.client import RedisClient
from worker.server.scripts import Argument, Script
from worker.server.troubles import trouble

logger = get_logger(__name__)

AT_ONCE = 100
"""Messages that a script changes in one step; the server answers no one else meanwhile, for some milliseconds."""

ASK_ABOVE = 10
"""The most messages that are changed without a question to the person."""

UNKNOWN = "unknown"
"""The reason for which an id is refused of which nothing is kept."""

MOST_NAMED = 1_000
"""The most messages that a preview names one by one."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The messages that matched a filter when they were counted: those on the page of this cursor, and after it."""

    wanted: MessageFilter
    up_to: int


Targets = MessageFilter | Counted | Sequence[str]
"""A filter for all matching messages, those that were counted, or the ids of messages (a text is one id)."""

# The options that Dramatiq and we add to a message while it runs.
_SPENT = ("retries", "traceback", "requeue_timestamp", "eta", "due_ms", "waits", "unique", FREED_AT_START)


_REPLAY, _CANCEL, _RUN_NOW, _PAUSE = Script("replay"), Script("cancel"), Script("run_now"), Script("pause")
_PURGE = Script("purge")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an action.

    Attributes:
        action: replay, purge, cancel or run_now.
        done: The ids of the changed messages. A running message was told to end.
        refused: The ids of the unchanged messages, each with the reason.
    """

    action: str
    done: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """The effect that an action would have.

    Attributes:
        action: replay, purge, cancel or run_now.
        count: The number of messages that it would change.
        messages: The newest of them.
        targets: These messages, as the targets of the action: those that match only later are not changed unseen.
        refused: The ids of messages that it would not change, each with the reason.
    """

    action: str
    count: int
    messages: tuple[StoredMessage, ...]
    targets: Counted | Sequence[str]
    refused: Mapping[str, str] = field(default_factory=dict)


def replay(client: RedisClient, targets: Targets, *, by: str | None = None) -> Outcome:
    """Enqueues dead letters again: the same messages, with a new retry budget; the history of each goes on.

    Args:
        client: A client of the server.
        targets: The messages.
        by: The person that asks, or None for the user of this process.

    Raises:
        ServerUnreachable: The server did not answer, or refused; earlier changes stay.
    """
    return _act(client, Action.REPLAY, targets, by=by, script=_REPLAY, arguments_of=_replayed)


def purge(client: RedisClient, targets: Targets, *, by: str | None = None) -> Outcome:
    """Removes dead letters and their history.

    Raises:
        ServerUnreachable: The server did not answer, or refused; earlier changes stay.
    """
    return _act(client, Action.PURGE, targets, by=by, script=_PURGE, arguments_of=_named)


def cancel(client: RedisClient, targets: Targets, *, by: str | None = None) -> Outcome:
    """Cancels messages: one that waits or is delayed ends now, one that runs is interrupted, within a second.

    A running message ends CANCELLED, and is not retried: its coroutine is cancelled through the bridge, a sync actor
    is interrupted as by its time limit. If it completes before that, it has completed.

    Raises:
        ServerUnreachable: The server did not answer, or refused; earlier changes stay.
    """
    return _act(client, Action.CANCEL, targets, by=by, script=_CANCEL, arguments_of=_named)


def run_now(client: RedisClient, targets: Targets, *, by: str | None = None) -> Outcome:
    """Enqueues delayed messages now.

    Raises:
        ServerUnreachable: The server did not answer, or refused; earlier changes stay.
    """
    return _act(client, Action.RUN_NOW, targets, by=by, script=_RUN_NOW, arguments_of=_named)


ACTIONS: Mapping[str, Callable[..., Outcome]] = {
    Action.REPLAY: replay,
    Action.PURGE: purge,
    Action.CANCEL: cancel,
    Action.RUN_NOW: run_now,
}


def preview(client: RedisClient, action: str, targets: Targets, *, limit: int = 20) -> Preview:
    """The effect that an action would have; changes nothing.

    Raises:
        ServerUnreachable: The server did not answer, or refused.
    """
    _check_targets(targets)
    if isinstance(targets, MessageFilter):
        return _preview_of_filter(client, action, targets, limit)
    refused = {} if isinstance(targets, Counted) else _all_unknown(targets)
    found = list(_candidates(client, action, targets, refused))
    for one in found:
        refused.pop(one.id, None)
    return Preview(action, len(found), tuple(found[:limit]), [one.id for one in found], refused)


def _preview_of_filter(client: RedisClient, action: str, wanted: MessageFilter, limit: int) -> Preview:
    states = APPLIES_TO[action]
    up_to = cursor_before(client, wanted, within=states)
    if up_to is None:
        return Preview(action, 0, (), [])
    found = list(islice(all_messages(client, wanted, within=states, cursor=up_to), MOST_NAMED + 1))
    if len(found) <= MOST_NAMED:
        return Preview(action, len(found), tuple(found[:limit]), [one.id for one in found])
    count = count_messages(client, wanted, within=states)
    # Some may be gone already.
    return Preview(action, max(count, len(found)), tuple(found[:limit]), Counted(wanted, up_to))


def pause(client: RedisClient, queue: str, *, by: str | None = None) -> bool:
    """Pauses a queue: workers finish its messages that they hold, and take no new ones, also after a restart.

    Returns:
        False if it was paused already.

    Raises:
        ConfigurationError: There is no such queue.
        ServerUnreachable: The server did not answer, or refused.
    """
    return _turn(client, "pause", queue, by)


def resume(client: RedisClient, queue: str, *, by: str | None = None) -> bool:
    """Resumes a paused queue: workers take its messages again.

    Returns:
        False if it was not paused.

    Raises:
        ConfigurationError: There is no such queue.
        ServerUnreachable: The server did not answer, or refused.
    """
    return _turn(client, "resume", queue, by)


def this_user() -> str:
    """The user of this process, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # in a container the number may have no name
    return f"{user}@{socket.gethostname()}"


def _turn(client: RedisClient, action: str, queue: str, by: str | None) -> bool:
    check_text("queue", queue)
    who = mask_secrets(by or this_user())
    changed = _run(client, _PAUSE, [action, who, _here(), queue])
    if changed is None:
        known = ", ".join(one.name for one in ask(client, queues())) or "none"
        raise ConfigurationError(f"no queue {queue!r}; there are: {known}")
    logger.info("an action was taken", action=action, queue=queue, by=who)
    return bool(changed)


def _act(
    client: RedisClient,
    action: str,
    targets: Targets,
    *,
    by: str | None,
    script: Script,
    arguments_of: Callable[[StoredMessage], list[Argument] | str],
) -> Outcome:
    _check_targets(targets)
    who = mask_secrets(by or this_user())
    if isinstance(targets, str):
        targets = [targets]
    target = mask_secrets(_described(targets))[:1_000]
    done: list[str] = []
    refused = {} if isinstance(targets, MessageFilter | Counted) else _all_unknown(targets)
    found = _candidates(client, action, targets, refused)
    while batch := list(islice(found, AT_ONCE)):
        arguments: list[Argument] = [action, who, _here(), target]
        asked = []
        for message in batch:
            own = arguments_of(message)
            if isinstance(own, str):
                refused[message.id] = own
            else:
                arguments += own
                asked.append(message.id)
        answers = _run(client, script, arguments) if asked else []
        for message_id, state in zip(asked, answers, strict=True):
            refused.pop(message_id, None)
            if state:
                refused[message_id] = state.decode()
            else:
                done.append(message_id)
    logger.info("an action was taken", action=action, target=target, count=len(done), by=who)
    return Outcome(action, tuple(done), refused)


def _check_targets(targets: object) -> None:
    if isinstance(targets, MessageFilter | Counted | str):
        return
    if not isinstance(targets, Sequence) or not all(isinstance(one, str) for one in targets):
        raise ConfigurationError(f"targets={shown(repr(targets))}: write a list of ids, or a MessageFilter(…)")


def _all_unknown(ids: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys([ids] if isinstance(ids, str) else ids, UNKNOWN)


def _candidates(client: RedisClient, action: str, targets: Targets, refused: dict[str, str]) -> Iterator[StoredMessage]:
    """The messages for which the action is valid; for other ids, `refused` gets the state as the reason."""
    states = APPLIES_TO[action]
    if isinstance(targets, MessageFilter):
        yield from all_messages(client, targets, within=states)
        return
    if isinstance(targets, Counted):
        yield from all_messages(client, targets.wanted, within=states, cursor=targets.up_to)
        return
    for message_id in dict.fromkeys([targets] if isinstance(targets, str) else targets):
        message = ask(client, one_message(message_id))
        if message is not None and message.state in states:
            yield message
        elif message is not None:
            gone = ", and its arguments are not kept any more: send it anew"
            lacks_arguments = message.arguments_dropped and action == Action.REPLAY
            refused[message_id] = message.state + (gone if lacks_arguments else "")


def _described(targets: Targets) -> str:
    """The targets in words, for the audit log."""
    if isinstance(targets, Counted):
        targets = targets.wanted
    return targets.describe() if isinstance(targets, MessageFilter) else " ".join(targets)


def _named(message: StoredMessage) -> list[Argument] | str:
    return [message.id]


def _replayed(message: StoredMessage) -> list[Argument] | str:
    """The message with a new retry budget, or the reason why it cannot run again."""
    try:
        found = decode(message.payload)
    except ValueError:
        return "cannot be read, so no worker can run it: purge it"
    for option in _SPENT:
        found.options.pop(option, None)
    return [message.id, encode(found, len(message.payload))]


def _here() -> str:
    here = WorkerId.here()
    return f"{here.host}:{here.pid}"


def _run(client: RedisClient, script: Script, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - the script's answer
    try:
        return script.run(client, arguments)
    except (redis.RedisError, OSError) as error:
        raise trouble(error) from error
