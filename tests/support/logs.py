"""The logging of the test's process, put back after a test in which the process logs as a worker does."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

import structlog

from worker.ground import logs


@contextlib.contextmanager
def logging_put_back() -> Iterator[None]:
    """Puts back the root's handlers and level, structlog's configuration, and every logger that was made with it."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logs._is_to_be_configured = False
        structlog.configure(**configuration)
        # A logger keeps the configuration of its first line.
        for module in list(sys.modules.values()):
            made = vars(module).get("logger")
            if isinstance(made, logs._Logger):
                made._made = None
