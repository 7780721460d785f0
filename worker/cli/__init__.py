"""The `worker` command: thin, without logic of its own.

A command's module is imported when the command runs, so that the command line starts quickly, and each command needs
only its own extras.
"""

from __future__ import annotations

import sys

import typer

from worker.cli.app import app
from worker.errors import ConfigurationError, WorkerError
from worker.ground.texts import visible, write_any_text

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

LONGEST = 500
"""The most characters of an error about the command line."""

# The base of the errors for misspelt options and missing arguments; Typer exports only a subclass.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Runs the command; an error is one line on standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        write_any_text(stream)
    sys.exit(_run())


def _run() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except _UsageError as error:
        # Without arguments, a group has shown its help, and there is no message.
        said = " ".join(str(getattr(error, "format_message", error.__str__)()).split()).rstrip(".")[:LONGEST]
        return _complain(f"{said}; see --help", MISUSED) if said else MISUSED
    except ConfigurationError as error:
        return _complain(str(error), MISUSED)
    except WorkerError as error:
        return _complain(str(error), FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _complain(text: str, code: int) -> int:
    for line in visible(text).split("\n"):
        print(f"worker: {line}", file=sys.stderr)  # noqa: T201 - an edge: logging may not be set up
    return code
