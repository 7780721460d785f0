"""Logging: structlog in front, the standard library's handlers behind, so that every library's lines look alike.

Set up at the edges only (the command line, a worker process at its start); importing sets up nothing.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.errors import Fatal, RetryLater
from worker.ground.secrets import mask_url


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger that ends in the standard library's, configured or not.

    A bare `structlog.get_logger` prints to standard output until somebody configures it: a library must not.
    """
    made: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), wrapper_class=structlog.stdlib.BoundLogger
    )
    return made


def configure_logs(level: str, form: str) -> None:
    """Sends every log line of this level and above to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `console`, `json`, or `auto`: console on a terminal, JSON otherwise.
    """
    console = form == "console" or (form == "auto" and _on_a_terminal())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_render(console)],
        )
    )
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _on_a_terminal() -> bool:
    # Dramatiq replaces sys.stderr in its workers with a pipe to its main process, which writes to the original.
    return sys.__stderr__ is not None and sys.__stderr__.isatty()


def _render(console: bool) -> list[Processor]:
    if console:
        # Plain: the default shows the locals of every frame, secrets among them, and takes half a second for it.
        return [_mask_passwords, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [
        structlog.processors.format_exc_info,
        _mask_passwords,
        structlog.processors.JSONRenderer(default=str),
    ]


def _mask_passwords(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[key] = mask_url(value)
    return event


def _is_wanted(record: logging.LogRecord) -> bool:
    if not record.name.startswith("dramatiq.worker"):
        return True
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RetryLater | Fatal):
        # A service said on purpose what should happen: a line, not a traceback.
        record.msg, record.args, record.exc_info = f"{record.getMessage()} {error!r}", None, None
    # Dramatiq warns about every result nobody asked for; a service may return what it likes.
    return not str(record.msg).startswith("Actor '")
