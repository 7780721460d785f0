"""`worker config`: the settings in force, and where each value came from."""

from __future__ import annotations

import importlib
import logging

from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_table
from worker.ground.values import show_value
from worker.settings import Settings, SettingsGroup, origins, variable, variables_without_effect

# The built-in application's groups are loaded by name, as its commands are: each enters itself.
for _room in ("conversations", "recall", "stores", "models"):
    importlib.import_module(f"worker.{_room}.settings")

GROUPS: tuple[type[SettingsGroup], ...] = (Settings, *(g for g in SettingsGroup.__subclasses__() if g is not Settings))
"""All groups of settings: the framework's, then those of the built-in application."""

logger = logging.getLogger(__name__)


def config(as_json: AsJson = False) -> None:
    """Show the settings in force and the origin of each; secrets are masked."""
    begin()
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
