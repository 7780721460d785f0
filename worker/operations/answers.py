"""Actions as JSON, on the command line and over HTTP alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dramatiq.common import q_name

from worker.broker.sent import Sent
from worker.operations.actions import Counted, Outcome, Preview


@dataclass(frozen=True, slots=True)
class Done:
    """The result of an action on messages, or its effect in a dry run.

    `count` is the number of changed messages. `ids` are their ids, over HTTP the first thousand. `refused` has the ids
    of unchanged messages, each with the reason. A dry run that counts more than a thousand has the ids of the newest,
    and `up_to`, with which the same filter finds those that were counted and none that came later; else it is null.
    """

    action: str
    dry_run: bool
    count: int
    ids: tuple[str, ...]
    refused: Mapping[str, str]
    up_to: int | None = None

    @classmethod
    def of(cls, outcome: Outcome, *, most: int | None = None) -> Self:
        """Describes an outcome, with at most `most` ids."""
        return cls(outcome.action, False, len(outcome.done), outcome.done[:most], outcome.refused)

    @classmethod
    def of_preview(cls, found: Preview) -> Self:
        """Describes a dry run."""
        if isinstance(found.targets, Counted):
            newest = tuple(one.id for one in found.messages)
            return cls(found.action, True, found.count, newest, {}, found.targets.up_to)
        return cls(found.action, True, found.count, tuple(found.targets), found.refused)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The message that waits now; with a unique key it may be an older one, and `is_new` is false."""

    message_id: str
    actor: str
    queue: str
    is_new: bool

    @classmethod
    def of(cls, sent: Sent[Any]) -> Self:
        """Describes what a send answered."""
        # Dramatiq's own broker keeps delayed messages in a queue of another name.
        return cls(sent.message_id, sent.actor_name, q_name(sent.queue_name), sent.is_new)


@dataclass(frozen=True, slots=True)
class Turned:
    """The pause of a queue: whether it is paused now, and whether that has changed."""

    queue: str
    paused: bool
    changed: bool
