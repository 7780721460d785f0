"""The tables of settings in the reference, written from the settings themselves: one for each group.

`python -m tests.docs.settings_table` writes them; a test fails while the page has others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from worker.cli.config import GROUPS
from worker.conversations.settings import ConversationSettings
from worker.ground.values import SIZE, show_value
from worker.models.settings import ModelSettings
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.environment import AlsoReadFrom, variable
from worker.settings.groups import SettingsGroup
from worker.stores.settings import StoreSettings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
TABLES = re.compile(r"(?<=tests\.docs\.settings_table` -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)

HEADINGS: Mapping[type[SettingsGroup], str] = {
    Settings: "The framework",
    ConversationSettings: "Conversations",
    RecallSettings: "Recall",
    StoreSettings: "Stores",
    ModelSettings: "Models",
}

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


def tables() -> str:
    """All tables with their headings, as they stand on the page."""
    return "\n".join(["", *(line for group in GROUPS for line in _table(group)), ""])


def rows(group: type[SettingsGroup]) -> list[str]:
    """The table's row for each setting of a group."""
    return [
        f"| `{variable(name)}` | {_kind(field)} | {_default(name, field)} | {_meaning(field)} |"
        for name, field in group.model_fields.items()
    ]


def _table(group: type[SettingsGroup]) -> list[str]:
    needs = f" Read only with the extra `{group.extra}`." if group.extra else ""
    about = (group.__doc__ or "").splitlines()[0]
    head = ["| variable | kind | default | what |", "|---|---|---|---|"]
    return [f"## {HEADINGS[group]}", "", about + needs, "", *head, *rows(group), ""]


def _default(name: str, field: FieldInfo) -> str:
    if name in DERIVED:
        return DERIVED[name]
    shown = show_value(field.get_default(call_default_factory=True, validated_data={}))
    return f"`{shown}`" if shown else "unset"


def _meaning(field: FieldInfo) -> str:
    others = [f" Also read from `{part.variable}`." for part in field.metadata if isinstance(part, AlsoReadFrom)]
    return (field.description or "") + "".join(others)


def _kind(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    given = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in given)
    if get_origin(annotation) is tuple:
        return "list"
    kind = (
        "size" if SIZE in field.metadata else next((KINDS[one] for one in [annotation, *given] if one in KINDS), None)
    )
    if kind is None:
        raise LookupError(f"no word for {annotation}: add it to KINDS")
    bounds = [
        f"{word} {show_value(value)}" for word, name in (("≥", "ge"), ("≤", "le")) for value in _bound(field, name)
    ]
    return ", ".join([kind, *bounds])


def _bound(field: FieldInfo, name: str) -> list[int]:
    return [getattr(part, name) for part in field.metadata if hasattr(part, name)]


if __name__ == "__main__":
    PAGE.write_text(TABLES.sub(lambda _: tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
