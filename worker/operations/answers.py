"""How actions, health and findings look as JSON, on the command line and over HTTP alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worker.operations.actions import Outcome, Preview
from worker.operations.health import Health, HealthState


@dataclass(frozen=True, slots=True)
class Done:
    """An action on messages that was taken, or that would be, in a dry run.

    `count` says how many messages it changes. `ids` are theirs; over HTTP the first thousand, in a dry run the newest.
    `refused` has the ids of the messages that it could not change, each with the reason.
    """

    action: str
    dry_run: bool
    count: int
    ids: tuple[str, ...]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, outcome: Outcome, *, most: int | None = None) -> Self:
        """Describes an outcome, with at most so many ids."""
        return cls(outcome.action, False, len(outcome.done), outcome.done[:most], outcome.refused)

    @classmethod
    def of_preview(cls, found: Preview) -> Self:
        """Describes a dry run."""
        return cls(found.action, True, found.count, tuple(one.id for one in found.messages), {})


@dataclass(frozen=True, slots=True)
class Turned:
    """Whether a queue is paused now, and whether that is new."""

    queue: str
    paused: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """The health of the system: the verdict, its reasons (a line each), and the number of workers that are alive."""

    state: HealthState
    reasons: tuple[str, ...]
    workers: int

    @classmethod
    def of(cls, health: Health) -> Self:
        """Describes the health."""
        return cls(health.state, health.reasons, health.workers)
