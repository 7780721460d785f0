"""Reads the variables of the environment and of the project's `.env`: no other module reads either."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dotenv import dotenv_values
from pydantic.fields import FieldInfo

from worker.errors import ConfigurationError
from worker.ground.project import project_root

_PREFIX = "WORKER_"

_TOLD = "_WORKER_VARIABLES_ARE_TOLD"
"""Set for workers whose parent has told of the variables that name no setting."""

# Kubernetes sets these in every container, for each service of the namespace: for one named `worker-web`
# WORKER_WEB_SERVICE_HOST, WORKER_WEB_PORT=tcp://10.0.0.1:80 and WORKER_WEB_PORT_80_TCP_ADDR.
_OF_A_SERVICE = re.compile(r".*_SERVICE_(HOST|PORT(_.+)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_PORT_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://.+:\d+")


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
    for present, origin in ((_dotenv(), ".env"), (_environment(), "environment ({})")):
        for name, field in fields.items():
            others = [part.variable for part in field.metadata if isinstance(part, AlsoReadFrom)]
            for one in (variable(name), *others):
                if one in present:
                    found[name] = Written(present[one], one, origin.format(one))
                    break
    return found


def variables_of_ours() -> dict[str, str]:
    """The variables with our prefix, whether or not they name a setting, each with the place where it is written."""
    places = ((_dotenv(), " in .env"), (_environment(), ""))
    found = {name: place for values, place in places for name in values if name.startswith(_PREFIX)}
    return dict(sorted(found.items()))


def of_children() -> dict[str, str]:
    """The environment for workers that this process begins: it has told of the variables that name no setting."""
    return {**os.environ, _TOLD: "1"}


def is_told() -> bool:
    """Whether the process that began this one has told of the variables that name no setting."""
    return _TOLD in os.environ


def _environment() -> dict[str, str]:
    """The environment's variables, in capitals, without the empty ones and without those of Kubernetes' services."""
    return {name: value for name, value in _in_capitals(os.environ) if not _is_of_a_service(name, value)}


def _is_of_a_service(name: str, value: str) -> bool:
    is_port = name.endswith("_PORT") and _PORT_OF_A_SERVICE.fullmatch(value) is not None
    return is_port or _OF_A_SERVICE.fullmatch(name) is not None


def _in_capitals(values: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    return ((name.upper(), value) for name, value in values.items() if value)


def _dotenv() -> dict[str, str]:
    file = project_root() / ".env"
    try:
        return dict(_in_capitals(dotenv_values(file, encoding="utf-8")))
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}; make it a readable text file in UTF-8") from error
