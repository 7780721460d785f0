"""Reads the variables of the environment and of the project's `.env`: no other module reads either."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dotenv import dotenv_values
from pydantic.fields import FieldInfo

from worker.errors import ConfigurationError
from worker.ground.project import project_root

_PREFIX = "WORKER_"


@dataclass(frozen=True, slots=True)
class AlsoReadFrom:
    """Marks a setting that has a second variable, which counts where the first is not set."""

    variable: str


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


class Written(NamedTuple):
    """A value as it is written somewhere."""

    value: str
    variable: str
    origin: str


def written(fields: Mapping[str, FieldInfo]) -> dict[str, Written]:
    """The settings that are written in the environment, or else in the project's `.env`."""
    found = {}
    for values, origin in ((_dotenv(), ".env"), (os.environ, "environment ({})")):
        present = {name.upper(): value for name, value in values.items() if value}
        for name, field in fields.items():
            others = [part.variable for part in field.metadata if isinstance(part, AlsoReadFrom)]
            for one in (variable(name), *others):
                if one in present:
                    found[name] = Written(present[one], one, origin.format(one))
                    break
    return found


def variables_of_ours() -> list[str]:
    """The environment's variables with our prefix, sorted, whether or not they name a setting."""
    return sorted(name for name in os.environ if name.upper().startswith(_PREFIX))


def _dotenv() -> dict[str, str | None]:
    file = project_root() / ".env"
    try:
        return dotenv_values(file, encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}; make it a readable text file in UTF-8") from error
