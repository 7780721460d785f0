"""`worker config`: what is in force, and where each value came from."""

from __future__ import annotations

import logging

from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_table
from worker.settings import Settings, origins, show_value, unknown_variables, variable

logger = logging.getLogger(__name__)


def config(as_json: AsJson = False) -> None:
    """Show the settings in force and the origin of each; secrets are masked."""
    settings = begin()
    for name in unknown_variables():
        logger.warning("%s names no setting: is it misspelt?", name)
    came_from = origins(settings)
    shown = {name: show_value(getattr(settings, name)) for name in Settings.model_fields}
    if as_json:
        print_json({variable(name): {"value": value, "from": came_from[name]} for name, value in shown.items()})
        return
    rows = [
        (variable(name), value, came_from[name], Settings.model_fields[name].description or "")
        for name, value in shown.items()
    ]
    print_table(("variable", "value", "from", ""), rows)
