"""The table of settings in the reference, written from the settings themselves.

`python -m tests.docs.settings_table` writes it; a test fails while the page has another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from worker.settings import Settings, show_value, variable

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
TABLE = re.compile(r"(?<=tests\.docs\.settings_table` -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)

DERIVED = {
    "data_dir": "`.worker` in the project",
    "database_url": "SQLite in the data directory",
    "objects_url": "`objects` in the data directory",
    "index_dir": "`index` in the data directory",
}
"""Defaults that depend on where the program runs."""

KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "whole number",
    Path: "folder",
    SecretStr: "text, secret",
    str: "text",
    timedelta: "duration",
}


def rows() -> dict[str, str]:
    """The table's row for each setting."""
    found = {}
    for name, field in Settings.model_fields.items():
        cells = (f"`{variable(name)}`", _kind(field), _default(name, field), _meaning(name, field))
        found[name] = f"| {' | '.join(cells)} |"
    return found


def table() -> str:
    """The whole table, as it stands on the page."""
    return "\n".join(["", "| variable | kind | default | what |", "|---|---|---|---|", *rows().values(), "", ""])


def _default(name: str, field: FieldInfo) -> str:
    if name in DERIVED:
        return DERIVED[name]
    shown = show_value(field.get_default(call_default_factory=True, validated_data={}))
    return f"`{shown}`" if shown else "unset"


def _meaning(name: str, field: FieldInfo) -> str:
    text = field.description or ""
    if isinstance(field.validation_alias, AliasChoices):
        others = [str(choice) for choice in field.validation_alias.choices if choice != variable(name)]
        text += "; also read from " + ", ".join(f"`{other}`" for other in others)
    return text


def _kind(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    given = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in given)
    if get_origin(annotation) is tuple:
        return "list"
    kind = next((KINDS[one] for one in [annotation, *given] if one in KINDS), None)
    if kind is None:
        raise LookupError(f"no word for {annotation}: add it to KINDS")
    bounds = [
        f"{word} {show_value(value)}" for word, name in (("≥", "ge"), ("≤", "le")) for value in _bound(field, name)
    ]
    return ", ".join([kind, *bounds])


def _bound(field: FieldInfo, name: str) -> list[int]:
    return [getattr(part, name) for part in field.metadata if hasattr(part, name)]


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
