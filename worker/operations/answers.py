"""Actions as JSON, on the command line and over HTTP alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worker.operations.actions import Outcome, Preview


@dataclass(frozen=True, slots=True)
class Done:
    """The result of an action on messages, or its effect in a dry run.

    `count` is the number of changed messages. `ids` are their ids; over HTTP the first thousand, in a dry run the
    newest. `refused` has the ids of unchanged messages, each with the reason.
    """

    action: str
    dry_run: bool
    count: int
    ids: tuple[str, ...]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, outcome: Outcome, *, most: int | None = None) -> Self:
        """Describes an outcome, with at most `most` ids."""
        return cls(outcome.action, False, len(outcome.done), outcome.done[:most], outcome.refused)

    @classmethod
    def of_preview(cls, found: Preview) -> Self:
        """Describes a dry run."""
        return cls(found.action, True, found.count, tuple(one.id for one in found.messages), {})


@dataclass(frozen=True, slots=True)
class Turned:
    """The pause of a queue: whether it is paused now, and whether that has changed."""

    queue: str
    paused: bool
    changed: bool
