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
from worker.cli.exit_codes import DONE, FAILED, INTERRUPTED, MISUSED
from worker.errors import ConfigurationError, WorkerError
from worker.ground.texts import visible, write_any_text

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
    except (SystemExit, OSError) as error:
        return _when_nothing_can_be_written(error)


def _command() -> int:
    code = int(app(standalone_mode=False) or 0)
    sys.stdout.flush()  # here, where a failure still has its line
    return code


def _when_nothing_can_be_written(error: SystemExit | OSError) -> int:
    """The exit code if the output's reader has seen enough, as `head` has, or the disk is full; raises all else again.

    Raises:
        SystemExit, OSError: The error itself, which is about something else.
    """
    cause = error.__context__ if isinstance(error, SystemExit) else error  # Typer ends the process for a broken pipe
    if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EPIPE):
        raise error
    _forget_output()
    return DONE if cause.errno == errno.EPIPE else _complain(f"nothing more can be written: {cause.strerror}", FAILED)


def _forget_output() -> None:
    """Lets go of the output that nobody takes, which would fail again at the process's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, code: int) -> int:
    for line in visible(text).split("\n"):
        print(f"worker: {line}", file=sys.stderr)  # noqa: T201 - an edge: logging may not be set up
    return code
