"""What may be asked for: parameters that several questions take, with their bounds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query
from pydantic import AfterValidator, Field, WithJsonSchema

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter, read_event_filter, read_message_filter
from worker.history.query import PAGE

MOST = 200
"""Of a page."""

_NAME = 1_000
_AGO = "^[0-9]{1,5}(ms|s|m|h|d)$"
_LONGEST_AGO = len("00000ms")


def _is_time_ago_or_moment(text: str) -> str:
    # As described: a number alone would be one of seconds, or a date.
    if len(text) <= _LONGEST_AGO and not re.search(_AGO, text):
        raise ValueError("write how long ago, such as 2h, or 2026-11-21T09:00")
    try:
        read_message_filter(since=text)
    except ConfigurationError as error:
        raise ValueError(str(error).removeprefix("since ")) from None
    return text


Name = Annotated[str, Field(max_length=_NAME, min_length=1)]
Mark = Literal["queued", "delayed", "running", "completed", "skipped", "dead", "cancelled", "failed", "lost"]
Pair = Annotated[str, Field(pattern=r"^[^=]+=", max_length=_NAME, examples=["conversation_id=42"])]
Moment = Annotated[
    str,
    Field(min_length=1, max_length=40),
    AfterValidator(_is_time_ago_or_moment),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [{"pattern": _AGO}, {"format": "date-time"}],
            "description": "How long ago, such as `2h`, or when, such as `2026-11-21T09:00:00Z`.",
        }
    ),
]
Pairs = Annotated[list[Pair], Query(max_length=10, description="About all of these, each `key=value`.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]
Cursor = Annotated[int | None, Query(ge=0, le=2**53, description="The last page's.")]
Over = Annotated[
    str,
    Query(pattern="^([1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d)$", description="A time that ends now."),
]

DEFAULT_LIMIT = PAGE


def read_over(over: str) -> timedelta:
    """How long."""
    return parse_duration(over)


def message_filter(
    *,
    state: Annotated[list[Mark], Query(max_length=9, description="In one of these; failed, lost: have had one.")] = [],  # noqa: B006
    actor: Annotated[Name | None, Query()] = None,
    queue: Annotated[Name | None, Query()] = None,
    subject: Pairs = [],  # noqa: B006
    error: Annotated[Name | None, Query(description="An attempt failed with this type of error.")] = None,
    cause: Annotated[Name | None, Query(description="A dead letter that died of this.")] = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
) -> MessageFilter:
    """Which messages are wanted: those that match everything that is given."""
    return read_message_filter(
        states=state,
        actor=actor,
        queue=queue,
        subject=subject,
        error=error,
        cause=cause,
        since=since,
        until=until,
    )


def event_filter(
    *,
    message_id: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    actor: Annotated[Name | None, Query()] = None,
    queue: Annotated[Name | None, Query()] = None,
    subject: Pairs = [],  # noqa: B006
    error: Annotated[Name | None, Query(description="With this type of error.")] = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
) -> EventFilter:
    """Which events are wanted: those that match everything that is given."""
    return read_event_filter(
        message_id=message_id,
        state=state,
        actor=actor,
        queue=queue,
        subject=subject,
        error=error,
        since=since,
        until=until,
    )
