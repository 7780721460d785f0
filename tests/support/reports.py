"""Reports of tests on their way from the process that ran them to the one that prints them."""

from __future__ import annotations

from typing import Any


def unicode_only(data: Any) -> Any:
    """The same data with escapes for lone surrogates, which a report quotes and no stream of UTF-8 carries."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {key: unicode_only(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(unicode_only(value) for value in data)
    return data
