"""Logging: structlog in front, the standard library's handlers behind, so that every library's lines look alike.

Only the edges set it up: the command line, and a worker process at its start. An import sets up nothing. In a worker
process, the handlers, loggers and structlog of the program must stay as it has set them up.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO, cast

from worker.errors import RetryLater
from worker.ground.groups import ON_PURPOSE, deciding, errors_in
from worker.ground.scope import scope
from worker.ground.secrets import MASK, is_secret, mask_secrets
from worker.ground.tracebacks import from_the_programs_code

if TYPE_CHECKING:
    import structlog
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

_is_to_be_configured = False

_FAILED_AS_EXPECTED = "Failed to process message %s with expected"
"""The begin of Dramatiq's line about an error that an actor expects."""

_DEEPEST = 5
"""Values within values that are looked at one by one; deeper ones are masked as a text."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger that writes to the standard library's logger of this name, before and after configuration.

    A bare `structlog.get_logger` prints to standard output until it is configured. A library must not do that.
    """
    return cast("structlog.stdlib.BoundLogger", _Logger(name))


class _Logger:
    """Loads structlog with its first line. Most commands write none, and take less time than the loading."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._made: Any = None

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401 - a method of structlog's logger
        structlog = _structlog()
        if self._made is not None:
            return getattr(self._made, method)
        own, kind = logging.getLogger(self._name), structlog.stdlib.BoundLogger
        if not structlog.is_configured():
            # Not kept: the program, or a worker process, may yet set structlog up.
            return getattr(structlog.wrap_logger(own, _before_handlers(), wrapper_class=kind), method)
        self._made = structlog.wrap_logger(own, wrapper_class=kind)
        return getattr(self._made, method)


def configure_logs(level: str, form: str) -> None:
    """Sends every log line of this level and above to standard error.

    Tracebacks begin where the program's own code does; at the level `debug` they are whole.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `console`, `json`, or `auto`: console on a terminal, JSON otherwise.
    """
    global _is_to_be_configured
    _is_to_be_configured = True
    root = logging.getLogger()
    root.handlers[:] = [_handler(level, form)]
    root.setLevel(level.upper())


def configure_logs_in_place_of(replaced: Callable[[logging.Handler], bool], level: str, form: str) -> None:
    """Does what `configure_logs` does, in the place of certain handlers of the root alone.

    Other handlers stay, and structlog stays if the program has configured it. If the root has none of those handlers,
    logging is the program's: nothing changes.

    Args:
        replaced: Whether ours takes the place of a handler.
        level: As in `configure_logs`.
        form: As in `configure_logs`.
    """
    global _is_to_be_configured
    root = logging.getLogger()
    if not any(map(replaced, root.handlers)):
        return
    structlog = sys.modules.get("structlog")
    _is_to_be_configured = structlog is None or not structlog.is_configured()
    root.handlers[:] = [*(one for one in root.handlers if not replaced(one)), _handler(level, form)]
    root.setLevel(level.upper())


def _handler(level: str, form: str) -> logging.Handler:
    on_console = form == "console" or (form == "auto" and _on_a_terminal())
    handler = _Handler(console=on_console, whole=level == "debug")
    handler.addFilter(_is_wanted)
    return handler


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error as structlog renders them. Loads structlog with the first line."""

    def __init__(self, *, console: bool, whole: bool) -> None:
        super().__init__(sys.stderr)
        self._console = console
        self._whole = whole

    def format(self, record: logging.LogRecord) -> str:
        if self.formatter is None:
            self.formatter = _formatter(console=self._console, whole=self._whole)
        return super().format(record)


def _structlog() -> Any:  # noqa: ANN401 - a module
    """Structlog, set up as `configure_logs` has said."""
    global _is_to_be_configured
    import structlog  # noqa: PLC0415 - it takes as long as a whole command

    if _is_to_be_configured:
        _is_to_be_configured = False
        structlog.configure(
            processors=_before_handlers(),
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=True,
        )
    return structlog


def _before_handlers() -> list[Processor]:
    """The processors of a line that structlog began, until the standard library's handlers have it."""
    structlog = _structlog()
    return [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        *_shared(),
        _hand_over,
    ]


class _Line(dict[str, Any]):
    """The fields of a line. Our handler writes each; to any other it is a text, as its `logging` expects."""

    def __str__(self) -> str:
        fields = [f"{name}={_masked(name, value)}" for name, value in self.items() if name not in _NOT_FIELDS]
        return " ".join([mask_secrets(str(self.get("event", ""))), *fields])


_NOT_FIELDS = {"event", "exc_info", "level", "logger", "stack", "timestamp"}
"""The fields that a record has besides its text."""


def _hand_over(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[_Line], dict[str, Any]]:
    """The arguments for the standard library's logger."""
    return (_Line(event),), {"extra": {"_logger": logger, "_name": method}, "exc_info": event.get("exc_info")}


def _shared() -> list[Processor]:
    """The processors of every line, whether structlog or the standard library began it."""
    structlog = _structlog()
    return [
        _add_fields,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    attempt = scope.get()
    return event if attempt is None else {**attempt.log_fields(), **event}


def _formatter(*, console: bool, whole: bool) -> logging.Formatter:
    structlog = _structlog()
    made: logging.Formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_render(console=console, whole=whole)],
    )
    return made


def _on_a_terminal() -> bool:
    # In its workers, Dramatiq replaces sys.stderr with a pipe to its main process, which writes to the real one.
    return sys.__stderr__ is not None and sys.__stderr__.isatty()


def _render(*, console: bool, whole: bool) -> list[Processor]:
    structlog = _structlog()
    if console:
        # The default formatter shows the local variables of every frame, with secrets, and takes half a second.
        return [_mask, structlog.dev.ConsoleRenderer(exception_formatter=_write_whole if whole else _write_traceback)]
    return [
        structlog.processors.format_exc_info,
        *([] if whole else [_begin_with_the_program]),
        _mask,
        structlog.processors.JSONRenderer(default=str),
    ]


def _mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if key != "exc_info":  # whoever renders the traceback masks it
            event[key] = _masked(key, value)
    return event


def _masked(name: object, value: object, depth: int = 0) -> object:
    """The value without secrets: one with a telling name is one itself, and others may hold some, at any depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(name, str) and is_secret(name):
        return MASK
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {key: _masked(key, held, depth + 1) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [_masked(None, held, depth + 1) for held in value]
    return mask_secrets(value if isinstance(value, str) else str(value))


def _begin_with_the_program(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if "exception" in event:
        event["exception"] = from_the_programs_code(event["exception"])
    return event


def _write_traceback(sink: TextIO, error: ExcInfo) -> None:
    written = io.StringIO()
    _write_whole(written, error)
    sink.write(from_the_programs_code(written.getvalue()))


def _write_whole(sink: TextIO, error: ExcInfo) -> None:
    written = io.StringIO()
    _structlog().dev.plain_traceback(written, error)
    sink.write(mask_secrets(written.getvalue()))


def _is_wanted(record: logging.LogRecord) -> bool:
    if not record.name.startswith("dramatiq.worker"):
        return True
    error = record.exc_info[1] if record.exc_info else None
    if str(record.msg).startswith(_FAILED_AS_EXPECTED) and isinstance(_decides_now(), RetryLater):
        return False  # waiting is no failure, and is told where it is decided
    if error is not None and all(isinstance(one, ON_PURPOSE) for one in errors_in(error)):
        # The service raised this on purpose: a line is enough, without a traceback.
        record.msg, record.args, record.exc_info = f"{record.getMessage()} {error!r}", None, None
    # Dramatiq warns about every result that is not stored; a service may return anything.
    return not str(record.msg).startswith("Actor '")


def _decides_now() -> BaseException | None:
    """The error that is being handled, or the one that decides in a group; Dramatiq's line names only its type."""
    error = sys.exc_info()[1]
    return None if error is None else deciding(error)
