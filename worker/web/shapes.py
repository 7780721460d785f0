"""The shapes of answers that only the web gives. Rooms below describe the answers of the command line and the web."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from worker.ground import json_values


def readable(text: object) -> object:
    """The text with halves of characters escaped: they could not be sent."""
    return json_values.readable(text) if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(readable)]
Time = Annotated[
    datetime,
    PlainSerializer(json_values.iso, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


class Shape(BaseModel):
    """The base of all shapes."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Session(Shape):
    """The visitor."""

    name: Text
    may_act: bool
    shows_arguments: bool
    csrf_token: str = Field(description="A page sends it back with each action, in the header X-CSRF-Token.")
