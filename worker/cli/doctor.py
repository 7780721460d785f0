"""`worker doctor`: the problems of the server and of the settings, the application's too."""

from __future__ import annotations

import typer

from worker.cli.config import APPLICATION
from worker.cli.exit_codes import DONE, FAILED
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_table
from worker.cli.terminal import Styled
from worker.operations.doctor import Severity, examine
from worker.operations.health import PROBE_TIMEOUT
from worker.server.connection import connect

_SEVERITY_STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.PROBLEM: "red"}


def doctor(as_json: AsJson = False) -> None:
    """Check the server and the settings for problems, and show the remedies."""
    settings = begin()
    found = examine(connect(settings, timeout=PROBE_TIMEOUT), settings, APPLICATION)
    is_well = all(one.severity is not Severity.PROBLEM for one in found)
    if as_json:
        print_json({"ok": is_well, "findings": found})
    else:
        rows = [
            (one.name, Styled(one.severity, _SEVERITY_STYLES[one.severity]), one.found, one.remedy) for one in found
        ]
        print_table(("check", "result", "found", "what to do"), rows)
    raise typer.Exit(DONE if is_well else FAILED)
