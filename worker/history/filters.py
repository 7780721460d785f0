"""The filters of messages and of events: one table, and the reading of a person's input by it.

The options of the command line, the query parameters and bodies of the API, the forms and URLs of the pages, and their
help are all made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.ground.secrets import mask_secrets
from worker.ground.texts import shown
from worker.history.asked_with import check_conditions
from worker.history.events import State, StatusEvent
from worker.history.states import ATTEMPT_MARKS, MARKS

LONGEST = 1_000
"""The most characters of a value."""

Given = Mapping[str, str | Sequence[str] | None]
"""A person's input, by the name of the field. Empty texts count as not given."""


class Kind(Enum):
    """The ways in which a value is written."""

    TEXT = "any text"
    CHOICE = "one of a few words, in any case"
    PAIR = "key=value"
    MOMENT = "how long ago, such as 2h, or when, such as 2026-11-21T09:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterField:
    """One condition of a filter.

    Attributes:
        name: Its name in a query, a body, the URL of a page and an error; `--name` on the command line.
        kind: The way in which a value is written.
        help: A sentence for people.
        most: The most values; with more than one, it is a list.
        choices: The allowed words, if it is one of a few.
        example: A value, for forms and descriptions.
    """

    name: str
    kind: Kind = Kind.TEXT
    help: str
    most: int = 1
    choices: tuple[str, ...] = ()
    example: str = ""

    @property
    def is_list(self) -> bool:
        """Whether the field may have several values."""
        return self.most > 1


_ACTOR = FilterField(name="actor", help="Name of the actor.")
_QUEUE = FilterField(name="queue", help="Name of the queue.")
_SUBJECT = FilterField(
    name="subject",
    kind=Kind.PAIR,
    help="Part of the subject, such as conversation_id=42. Several: all of them.",
    most=10,
    example="conversation_id=42",
)
_ERROR = FilterField(
    name="error",
    help="Type of an error that ended an attempt, with or without its module.",
    example="ValueError",
)
_SINCE = FilterField(name="since", kind=Kind.MOMENT, help="Earliest time: 2h (ago), or 2026-11-21T09:00.", example="2h")
_UNTIL = FilterField(
    name="until", kind=Kind.MOMENT, help="Latest time: 2h (ago), or 2026-11-21T09:00.", example="2026-11-21T09:00"
)

MESSAGE_FIELDS = (
    FilterField(
        name="state",
        kind=Kind.CHOICE,
        help=f"State of the message; {', '.join(ATTEMPT_MARKS)}: state of one of its attempts. Several: one of them.",
        most=len(MARKS),
        choices=tuple(MARKS),
    ),
    _ACTOR,
    _QUEUE,
    _SUBJECT,
    _ERROR,
    FilterField(
        name="cause",
        help="Cause of a dead letter: an error's type, such as ValueError or httpx.ReadTimeout, lost, or unknown.",
        example="httpx.ReadTimeout",
    ),
    _SINCE,
    _UNTIL,
)
"""The conditions of a filter of messages."""

EVENT_FIELDS = (
    FilterField(name="message_id", help="Id of the message."),
    FilterField(name="state", kind=Kind.CHOICE, help="State of the event.", choices=tuple(one.value for one in State)),
    _ACTOR,
    _QUEUE,
    _SUBJECT,
    _ERROR,
    _SINCE,
    _UNTIL,
)
"""The conditions of a filter of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Selects the messages that match everything that is set.

    Attributes:
        states: The message is in one of these, or has an attempt with this end (failed, snoozed, lost).
        actor: The actor's name.
        queue: The queue's name.
        subject: The message has all of this; compared as text, so that `conversation_id=42` finds 42 and "42".
        error: An attempt ended with an error of this type, written with or without its module.
        cause: The message is a dead letter with this cause: an error's type with its module, or without one if it is
            Python's own; `lost` or `unknown`.
        since: The message entered its state, or is due if it is delayed, at this time or later.
        until: The same, at this time or earlier.

    Raises:
        ConfigurationError: A state is unknown, or a value is of another kind.
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
        if not isinstance(self.states, tuple | list):
            raise ConfigurationError(f"states={shown(repr(self.states))}: write a tuple, such as ('dead',)")
        for state in self.states:
            if state not in MARKS:
                raise ConfigurationError(f"state {shown(str(state))}: there are {', '.join(MARKS)}")
        texts = {"actor": self.actor, "queue": self.queue, "error": self.error, "cause": self.cause}
        check_conditions(texts=texts, moments={"since": self.since, "until": self.until}, subject=self.subject)

    def describe(self) -> str:
        """The filter in words, for the audit log."""
        parts: list[str] = []
        for name, value in ((part.name, getattr(self, part.name)) for part in fields(self)):
            if isinstance(value, tuple):
                parts += [f"state={state}" for state in value]
            elif isinstance(value, Mapping):
                parts += [f"subject {key}={text}" for key, text in value.items()]
            elif isinstance(value, datetime):
                parts.append(f"{name}={value.isoformat(timespec='seconds')}")
            elif value:
                parts.append(f"{name}={value}")
        return " ".join(parts) or "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Selects the events that match everything that is set.

    `subject` is compared as text, so that `conversation_id=42` finds 42 and "42".

    Raises:
        ConfigurationError: A value is of another kind.
    """

    message_id: str | None = None
    state: State | None = None
    actor: str | None = None
    queue: str | None = None
    subject: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.state is not None:
            if self.state not in list(State):
                raise ConfigurationError(f"state {shown(str(self.state))}: there are {', '.join(State)}")
            object.__setattr__(self, "state", State(self.state))  # a text stands for it
        texts = {"message_id": self.message_id, "actor": self.actor, "queue": self.queue, "error": self.error}
        check_conditions(texts=texts, moments={"since": self.since, "until": self.until}, subject=self.subject)

    def matches(self, event: StatusEvent) -> bool:
        """Whether the filter selects the event."""
        return (
            self.message_id in (None, event.message_id)
            and self.actor in (None, event.actor)
            and self.queue in (None, event.queue)
            and self.state in (None, event.state)
            and (self.error is None or _is_of_type(event, self.error))
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time <= self.until)
            and all(_has(event, name, value) for name, value in self.subject.items())
        )


def _has(event: StatusEvent, name: str, value: str) -> bool:
    return name in event.subject and str(event.subject[name]) == mask_secrets(value)


def _is_of_type(event: StatusEvent, error: str) -> bool:
    return event.error is not None and any(one == error or one.endswith(f".{error}") for one in event.error.types)


# ---------------------------------------------------------------------- reading


def read_message_filter(given: Given) -> MessageFilter:
    """Reads a filter of messages as a person writes it, such as `{"state": ["dead"], "since": "2h"}`.

    Raises:
        ConfigurationError: A value cannot be read, or a name is unknown. One line: the name, the value, the remedy.
    """
    found = _read(MESSAGE_FIELDS, given)
    return MessageFilter(states=found.pop("state"), **found)


def read_event_filter(given: Given) -> EventFilter:
    """Reads a filter of events as a person writes it, such as `{"state": "failed", "since": "2h"}`.

    Raises:
        ConfigurationError: A value cannot be read, or a name is unknown. One line: the name, the value, the remedy.
    """
    found = _read(EVENT_FIELDS, given)
    state = found.pop("state")
    return EventFilter(state=None if state is None else State(state), **found)


def _read(table: Sequence[FilterField], given: Given) -> dict[str, Any]:
    names = [one.name for one in table]
    for name in given:
        if name not in names:
            raise ConfigurationError(f"{shown(name)}: there is no such filter; there are {', '.join(names)}")
    found = {one.name: read_field(one, given.get(one.name)) for one in table}
    since, until = found["since"], found["until"]
    if since is not None and until is not None and since > until:
        raise ConfigurationError(
            f"since {_as_given(given['since'])}: it is later than until {_as_given(given['until'])}: swap them"
        )
    return found


def _as_given(value: str | Sequence[str] | None) -> str:
    return shown(value if isinstance(value, str) else next(iter(value or ()), ""))


def read_field(wanted: FilterField, given: str | Sequence[str] | None) -> Any:  # noqa: ANN401 - as the field's kind is
    """Reads the values of one field.

    Returns:
        Pairs as a dictionary, a list as a tuple, one value as a text or a time; None if no value was given.

    Raises:
        ConfigurationError: A value cannot be read, is too long, or there are too many.
    """
    texts = [text for text in ([given] if isinstance(given, str) else given or ()) if text]
    name = wanted.name
    if len(texts) > wanted.most:
        raise ConfigurationError(f"{name}: {len(texts)} were given: at most {wanted.most}")
    for text in texts:
        if len(text) > LONGEST:
            raise ConfigurationError(f"{name} {shown(text)}: it is too long: at most {LONGEST:,} characters")
    if wanted.kind is Kind.PAIR:
        return _read_pairs(name, texts)
    values = [_read_one(wanted, text) for text in texts]
    if wanted.is_list:
        return tuple(values)
    return values[0] if values else None


def _read_one(wanted: FilterField, text: str) -> str | datetime:
    if wanted.kind is Kind.MOMENT:
        return read_moment(wanted.name, text)
    if wanted.kind is Kind.CHOICE:
        return _read_choice(wanted, text)
    return text


def _read_choice(wanted: FilterField, text: str) -> str:
    word = text.lower()
    if word not in wanted.choices:
        raise ConfigurationError(f"{wanted.name} {shown(text)}: there are {', '.join(wanted.choices)}")
    return word


def _read_pairs(name: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"{name} {shown(text)}: write key=value, such as conversation_id=42")
        if found.setdefault(key, value) != value:
            raise ConfigurationError(f"{name} {shown(text)}: {shown(key)} was given before, as {shown(found[key])}")
    return found


def read_moment(name: str, text: str) -> datetime:
    """Reads a time: how long ago it was (`2h`), or when (`2026-11-21T09:00`, in UTC unless it says otherwise).

    Raises:
        ConfigurationError: The text is not a time. Nor is a bare number: it may be seconds, or a year.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    complaint = f"{name} {shown(text)}: write {Kind.MOMENT.value}"
    if text.rstrip()[-1:].isdecimal():
        raise ConfigurationError(complaint)
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(complaint) from error
