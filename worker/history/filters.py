"""Which messages and events are wanted; a filter reads the same on the command line, over HTTP and in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.ground.texts import shown
from worker.history.events import State, StatusEvent

MESSAGE_STATES = ("queued", "delayed", "running", "completed", "skipped", "dead", "cancelled")
"""The states of a message."""

ATTEMPT_MARKS = {"failed": "ended:failed", "lost": "ended:lost"}
"""States of attempts by which messages are found too: those that have such an attempt."""

MARKS = {state: f"state:{state}" for state in MESSAGE_STATES} | ATTEMPT_MARKS


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Which messages are wanted: those that match everything that is set.

    Attributes:
        states: They are in one of these, or (failed, lost) have an attempt that ended so.
        actor: Of this actor.
        queue: Of this queue.
        subject: About all of this; compared by its text, so that `conversation_id=42` finds 42 and "42".
        error: An attempt failed with an error of this type, written with or without its module.
        cause: It is a dead letter that died of this: an error's type with its module, `lost` or `unknown`.
        since: It got its state, or is due if it is delayed, not before this.
        until: And not after this.
    """

    states: tuple[str, ...] = ()
    actor: str | None = None
    queue: str | None = None
    subject: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    cause: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for state in self.states:
            if state not in MARKS:
                raise ConfigurationError(f"state {shown(state)}: there are {', '.join(MARKS)}")

    def describe(self) -> str:
        """The filter in words, for the audit log."""
        parts = [f"state={state}" for state in self.states]
        parts += [f"{name}={value}" for name in ("actor", "queue", "error", "cause") if (value := getattr(self, name))]
        parts += [f"subject {key}={value}" for key, value in self.subject.items()]
        moments = {"since": self.since, "until": self.until}
        parts += [f"{name}={moment.isoformat(timespec='seconds')}" for name, moment in moments.items() if moment]
        return " ".join(parts) or "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted: those that match everything that is set.

    `subject` is compared by its text, so that `conversation_id=42` finds 42 and "42".
    """

    message_id: str | None = None
    subject: Mapping[str, str] = field(default_factory=dict)
    actor: str | None = None
    queue: str | None = None
    state: State | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, event: StatusEvent) -> bool:
        """Whether the event is wanted."""
        return (
            self.message_id in (None, event.message_id)
            and self.actor in (None, event.actor)
            and self.queue in (None, event.queue)
            and self.state in (None, event.state)
            and (self.error is None or _is_of_type(event, self.error))
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time <= self.until)
            and all(str(event.subject.get(key)) == value for key, value in self.subject.items())
        )


def _is_of_type(event: StatusEvent, error: str) -> bool:
    return event.error is not None and (event.error.type == error or event.error.type.endswith(f".{error}"))


def read_message_filter(
    *,
    states: Sequence[str] = (),
    actor: str | None = None,
    queue: str | None = None,
    subject: Iterable[str] = (),
    error: str | None = None,
    cause: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> MessageFilter:
    """Reads a filter as a person writes it.

    Raises:
        ConfigurationError: A part of it cannot be read; one line with the part, its value and what may be written.
    """
    return MessageFilter(
        states=tuple(state.lower() for state in states),
        actor=actor or None,
        queue=queue or None,
        subject=read_subject(subject),
        error=error or None,
        cause=cause or None,
        since=read_moment("since", since),
        until=read_moment("until", until),
    )


def read_event_filter(
    *,
    message_id: str | None = None,
    state: str | None = None,
    actor: str | None = None,
    queue: str | None = None,
    subject: Iterable[str] = (),
    error: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> EventFilter:
    """Reads a filter as a person writes it.

    Raises:
        ConfigurationError: A part of it cannot be read; one line with the part, its value and what may be written.
    """
    return EventFilter(
        message_id=message_id or None,
        state=read_state(state),
        actor=actor or None,
        queue=queue or None,
        subject=read_subject(subject),
        error=error or None,
        since=read_moment("since", since),
        until=read_moment("until", until),
    )


def read_state(text: str | None) -> State | None:
    """Reads the state of an event.

    Raises:
        ConfigurationError: There is no such state.
    """
    if not text:
        return None
    try:
        return State(text.lower())
    except ValueError:
        raise ConfigurationError(f"state {shown(text)}: there are {', '.join(State)}") from None


def read_subject(pairs: Iterable[str]) -> dict[str, str]:
    """Reads `key=value` pairs.

    Raises:
        ConfigurationError: One has no `=`, or no key.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"subject {shown(pair)}: write key=value, such as conversation_id=42")
        if found.setdefault(key, value) != value:
            raise ConfigurationError(f"subject {shown(pair)}: {shown(key)} was given before, as {shown(found[key])}")
    return found


def read_moment(name: str, text: str | None) -> datetime | None:
    """Reads a time: how long ago it was (`2h`), or when (`2026-11-21T09:00`, in UTC unless it says otherwise).

    Raises:
        ConfigurationError: It is neither.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name} {shown(text)}: write how long ago, such as 2h, or 2026-11-21T09:00"
        ) from error
