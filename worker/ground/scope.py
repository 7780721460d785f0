"""The attempt in which code runs, for the rooms below it: one context variable, because every message sets it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol


class Scope(Protocol):
    """The attempt of a context."""

    @property
    def account(self) -> object:
        """The account of its calls."""

    def log_fields(self) -> Mapping[str, object]:
        """The fields that each of its log lines bears."""


scope: ContextVar[Scope | None] = ContextVar("scope", default=None)
"""The attempt that runs in this context, or None."""
