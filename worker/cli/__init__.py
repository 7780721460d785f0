"""The `worker` command: thin, without logic of its own.

A command's module is imported when the command runs, so that the command line starts quickly, and each command needs
only its own extras.
"""

from __future__ import annotations

import errno
import os
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
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # its caller has closed it, as `>&-` does
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open until the process ends
        write_any_text(getattr(sys, name))
    sys.exit(_run())


def _run() -> int:
    try:
        return _command()
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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        _forget_output()
        return 0 if error.errno == errno.EPIPE else _complain(f"nothing more can be written: {error.strerror}", FAILED)


def _command() -> int:
    code = int(app(standalone_mode=False) or 0)
    sys.stdout.flush()  # here, where a failure still has its line
    return code


def _forget_output() -> None:
    """Lets go of the output that nobody takes, which would fail again at the process's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, code: int) -> int:
    for line in visible(text).split("\n"):
        print(f"worker: {line}", file=sys.stderr)  # noqa: T201 - an edge: logging may not be set up
    return code
