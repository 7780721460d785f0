"""The kinds of values that settings have: how each is read from text, and how it is shown."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from worker.ground.durations import format_duration, parse_duration
from worker.ground.project import project_root
from worker.ground.secrets import mask_secrets
from worker.ground.sizes import parse_size

POOL_SIZES = range(1, 1025)
SHORTEST_TOKEN = 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")

# The standard library's logger: it works before our own logging is set up, which needs the settings.
logger = logging.getLogger(__name__)


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _at_least_a_mebibyte(value: int | None) -> int | None:
    if value is not None and value < 2**20:
        raise ValueError("must be at least 1MiB")
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0 seconds")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _plain_name(value: str) -> str:
    if not _PLAIN_NAME.fullmatch(value):
        raise ValueError("may only have letters, digits, hyphens, underscores and dots")
    return value


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _absolute(folder: Path) -> Path:
    return (project_root() / folder.expanduser()).resolve()


def _hard_to_guess(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value().strip()) < SHORTEST_TOKEN:
        raise ValueError(
            f"must have at least {SHORTEST_TOKEN} characters: make one with "
            '`python -c "import secrets; print(secrets.token_urlsafe())"`'
        )
    return token


def _clamp(size: int) -> int:
    clamped = min(max(size, POOL_SIZES[0]), POOL_SIZES[-1])
    if clamped != size:
        bounds = f"{POOL_SIZES[0]}..{POOL_SIZES[-1]}"
        logger.warning("WORKER_THREAD_POOL_SIZE=%d is outside %s: using %d", size, bounds, clamped)
    return clamped


ANY_CASE = BeforeValidator(_lower)
"""Before a `Literal` of lower-case words: capital letters are read as small ones."""

SIZE = BeforeValidator(_size)
"""Before an `int`: a number of bytes, written `60MB`, `512MiB`, `1.5GB`, or as a bare number."""

SizeLimit = Annotated[int | None, SIZE, AfterValidator(_at_least_a_mebibyte)]
"""A number of bytes, at least 1 MiB, or None."""

Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
"""A time longer than nothing, written `500ms`, `10s`, `5m`, `1h`, `7d`, or as a number of seconds."""

Folder = Annotated[Path, AfterValidator(_absolute)]
"""A folder, made absolute: a relative one starts at the project's folder."""

PlainName = Annotated[str, AfterValidator(_plain_name)]
"""A name of letters, digits, hyphens, underscores and dots."""

PoolSize = Annotated[int, AfterValidator(_clamp)]
"""A number of threads; one out of bounds is moved to the nearest bound, with a warning."""

Token = Annotated[SecretStr | None, AfterValidator(_hard_to_guess)]
"""A secret of at least 16 characters, or None."""

Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Words separated by commas."""

Folders = Annotated[tuple[Folder, ...], BeforeValidator(_split)]
"""Folders separated by commas, each made absolute."""


def show_value(value: object) -> str:
    """A setting's value as a person writes it, secrets masked."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return mask_secrets(secret) if "://" in secret else "***"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, tuple):
        return ",".join(str(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
