"""The parameters that several questions share, with their bounds. The table of filters makes those of filters."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query, Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field, WithJsonSchema

from worker.errors import ConfigurationError
from worker.ground.durations import parse_duration
from worker.ground.texts import shown
from worker.history.filters import (
    EVENT_FIELDS,
    LONGEST,
    MESSAGE_FIELDS,
    FilterField,
    Given,
    Kind,
    read_event_filter,
    read_field,
    read_message_filter,
)
from worker.history.query import PAGE

T = TypeVar("T")

MOST = 200
"""The most messages, events or actions of a page."""

DEFAULT_LIMIT = PAGE

Name = Annotated[str, Field(max_length=LONGEST, min_length=1)]
Limit = Annotated[int, Query(ge=1, le=MOST, description="At most this many.")]
Cursor = Annotated[int | None, Query(ge=0, le=2**53, description="The cursor of the last page.")]
Over = Annotated[
    str,
    Query(pattern="^([1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d)$", description="A time that ends now."),
]


def read_over(over: str) -> timedelta:
    """The time as a duration."""
    return parse_duration(over)


def value_of(field: FilterField) -> Any:  # noqa: ANN401 - a type, as pydantic reads it
    """The type of a field's value in a query or a body: a text, or a list of texts."""
    one = _text_of(field)
    return GenericAlias(list, (one,)) if field.is_list else one | None


def bounds_of(field: FilterField) -> dict[str, Any]:
    """The default, the bounds and the description of a field, for `Query` and `Field`."""
    bounds: dict[str, Any] = {"default": [], "max_length": field.most} if field.is_list else {"default": None}
    return bounds | {"description": field.help}


def _text_of(field: FilterField) -> Any:  # noqa: ANN401 - a type, as pydantic reads it
    if field.kind is Kind.CHOICE:
        return Literal[field.choices]
    bounds = Field(min_length=1, max_length=LONGEST)
    schema = {"type": "string"} | _SCHEMAS.get(field.kind, _BOUNDS)
    if field.example:
        schema["examples"] = [field.example]
    return Annotated[str, bounds, AfterValidator(_checked_by(field)), WithJsonSchema(schema)]


_BOUNDS: dict[str, Any] = {"minLength": 1, "maxLength": LONGEST}

_SCHEMAS: dict[Kind, dict[str, Any]] = {
    Kind.PAIR: {"pattern": "^[^=]+="} | _BOUNDS,
    Kind.MOMENT: {
        # No bounds for all of them: a date of a thousand characters is sought for half a minute by whoever tries them.
        "anyOf": [
            {"pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+$"} | _BOUNDS,
            {"format": "date-time"},
            {"format": "date"},
        ],
        "description": "How long ago, such as `2h`, or when, such as `2026-11-21T09:00:00Z`.",
    },
}


def _checked_by(field: FilterField) -> Callable[[str], str]:
    """Refuses a text that the table cannot read, in the table's words."""

    def check(text: str) -> str:
        try:
            read_field(field, text)
        except ConfigurationError as error:
            raise ValueError(str(error).removeprefix(f"{field.name} ")) from None
        return text

    return check


def _asked_by(table: Sequence[FilterField], read: Callable[[Given], T]) -> Callable[..., Awaitable[T]]:
    """A dependency of handlers: its query parameters are the fields of the table, its result is the filter."""

    async def asked(request: Request, **given: str | list[str] | None) -> T:
        del given  # FastAPI checks and describes them; of a text that is there twice it has only the last
        return read({field.name: request.query_params.getlist(field.name) for field in table})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("request", keyword, annotation=Request)]
    parameters += [
        inspect.Parameter(field.name, keyword, default=Query(**bounds_of(field)), annotation=value_of(field))
        for field in table
    ]
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return asked


async def only_known_parameters(request: Request) -> None:
    """A dependency of every handler: refuses a query with a name that the handler does not know.

    Without the condition that was meant, far more would match.

    Raises:
        ConfigurationError: There is such a name; the text lists the known ones.
    """
    if not request.query_params:
        return
    known = _parameters_of(request.scope["route"])
    for name in request.query_params:
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "there are none"
            raise ConfigurationError(f"query.{shown(name)}: there is no such parameter; {there_are}")


def _parameters_of(route: APIRoute) -> list[str]:
    return [one.alias for one in get_flat_params(route.dependant) if isinstance(one.field_info, params.Query)]


message_filter = _asked_by(MESSAGE_FIELDS, read_message_filter)
event_filter = _asked_by(EVENT_FIELDS, read_event_filter)
