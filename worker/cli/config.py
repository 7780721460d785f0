"""`worker config`: the settings in force, and where each value came from."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

from worker.cli.options import AsJson, read_settings
from worker.cli.output import print_json, print_table
from worker.ground.values import show_value
from worker.settings import Settings
from worker.settings.environment import variable
from worker.settings.groups import SettingsGroup, origins
from worker.settings.unread import variables_without_effect

_MODULES = tuple(f"worker.{room}.settings" for room in ("conversations", "recall", "stores", "models"))
for _module in _MODULES:
    # Loaded by name, as the built-in application's commands are: its groups enter themselves.
    importlib.import_module(_module)


def _of_the_application() -> Iterator[type[SettingsGroup]]:
    for module in _MODULES:
        yield from (group for group in SettingsGroup.__subclasses__() if group.__module__ == module)


APPLICATION = tuple(_of_the_application())
"""The groups of settings of the built-in application."""

GROUPS: tuple[type[SettingsGroup], ...] = (Settings, *APPLICATION)
"""All groups of settings, the framework's first."""

logger = logging.getLogger(__name__)


def config(as_json: AsJson = False) -> None:
    """Show the settings in force and the origin of each; secrets are masked."""
    read_settings()
    for doubt in variables_without_effect(GROUPS):
        logger.warning("%s: %s", doubt.found, doubt.remedy)
    rows = [row for group in GROUPS if group.is_in_use() for row in _rows(group.in_force())]
    if as_json:
        print_json({name: {"value": value, "from": origin} for name, value, origin, _ in rows})
    else:
        print_table(("variable", "value", "from", ""), rows)


def _rows(settings: SettingsGroup) -> list[tuple[str, str, str, str]]:
    """A group's settings, each with its variable, its value, its origin and its description."""
    came_from = origins(settings)
    return [
        (variable(name), show_value(getattr(settings, name)), came_from[name], field.description or "")
        for name, field in type(settings).model_fields.items()
    ]
