"""Logging: structlog in front, the standard library's handlers behind, so that every library's lines look alike.

Only the edges set it up: the command line, and a worker process at its start. An import sets up nothing.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.errors import Fatal, RetryLater
from worker.ground.secrets import mask_url


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger that writes to the standard library's logger of this name, before and after configuration.

    A bare `structlog.get_logger` prints to standard output until it is configured. A library must not do that.
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
    # In its workers, Dramatiq replaces sys.stderr with a pipe to its main process, which writes to the real one.
    return sys.__stderr__ is not None and sys.__stderr__.isatty()


def _render(console: bool) -> list[Processor]:
    if console:
        # The default formatter shows the local variables of every frame, with secrets, and takes half a second.
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
        # The service raised this on purpose: a line is enough, without a traceback.
        record.msg, record.args, record.exc_info = f"{record.getMessage()} {error!r}", None, None
    # Dramatiq warns about every result that is not stored; a service may return anything.
    return not str(record.msg).startswith("Actor '")
