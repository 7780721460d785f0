"""The `worker` command: thin, no logic of its own.

A command's module is imported when the command runs, so that the command line starts quickly and needs no more
installed than what it does.
"""

from __future__ import annotations

import sys

from worker.cli.app import app
from worker.errors import ConfigurationError, WorkerError

FAILED = 1
MISUSED = 2


def main() -> None:
    """Runs the command; what goes wrong is one line on standard error, and no traceback."""
    try:
        app()
    except WorkerError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201 - an edge: logging may not be set up
        sys.exit(MISUSED if isinstance(error, ConfigurationError) else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (`head`) has seen enough; keep the interpreter from complaining at its end.
        sys.stderr.close()
        sys.exit(0)
