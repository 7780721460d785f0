"""`ProcessingStatusContext`: records what happens to an attempt, or to a span inside it.

An attempt has one set of events. Inside a worker the attempt's run owns it: the outermost context gives the events
their name, subject and text, and the event that ends the attempt is written when Dramatiq has the outcome, because an
error that escapes after the context counts. Contexts inside it are spans, with events of their own.
Recording never fails the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextvars import Token
from types import TracebackType
from typing import Self

from worker.attempts.run import AttemptRun, current_run
from worker.attempts.spans import Span, current_span
from worker.errors import NoContentFound
from worker.ground.groups import deciding, release
from worker.ground.texts import shown
from worker.history.events import SubjectValue

__all__ = ["ProcessingStatusContext"]

_LARGEST = 2**63
"""Greater numbers are of no use to anybody, and not all readers of JSON take them."""


class ProcessingStatusContext:
    """Records STARTED on entry, and on exit COMPLETED, SKIPPED, SNOOZED or FAILED; for `with` and `async with`.

    `NoContentFound` that comes out is SKIPPED and swallowed, so that the message is acknowledged and not retried.
    Any other error passes on, so that Dramatiq retries, and is kept with type, text and traceback: `RetryLater` is
    SNOOZED, and FAILED if it spends the retry budget or nobody retries; every other error is FAILED. A context
    inside another is a span of it: it records the same, and lets every error pass. Outside a worker
    (a script, a test) it works too, without the message's fields.

    Args:
        event_prefix: The name of the events: `<event_prefix>.started` and so on.
        message: A text for the STARTED event.
        subject: The subject of the work, such as `conversation_id=…`; values are plain JSON values.
    """

    def __init__(self, event_prefix: str, message: str = "", **subject: SubjectValue) -> None:
        if not event_prefix:
            raise ValueError("event_prefix is empty: name the work, such as 'merge_conversation'")
        if not isinstance(event_prefix, str):
            raise TypeError(f"event_prefix={shown(repr(event_prefix))}: name the work, such as 'merge_conversation'")
        self._span = Span(event_prefix, _text(message), subject)
        self._outer: Span | None = None
        self._run: AttemptRun | None = None
        self._token: Token[Span | None] | None = None

    def set_exit_message(self, text: str) -> None:
        """Sets the text of the event that ends this context."""
        self._span.text = _text(text)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Records a progress event: the finished amount, and the total amount or None.

        You can call it often: one call per second is recorded, the first a second after the start. What is no number is
        left out.

        Raises:
            RuntimeError: The context was not entered.
        """
        if self._span.progress_is_due():
            self._span.progress(_number(done), _number(total), _text(text))

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("this ProcessingStatusContext was entered before: make a new one for each use")
        self._outer = current_span.get()
        self._run = run = current_run.get()
        if run is not None:
            if run.is_open:
                self._outer = self._outer or run.own_span()
            elif run.span is None:
                run.span = self._span
        root = run.span if run is not None else self._outer.root if self._outer is not None else None
        self._span.start(
            run.recorder if run is not None else None,
            attempt=run.attempt if run is not None else None,
            root=None if root is self._span else root,
            outer=self._outer,
        )
        self._token = current_span.set(self._span)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self._token is not None:
            # It was entered in another context (a generator that its loop closes, a dependency in a thread pool): here
            # is nothing to restore.
            with contextlib.suppress(ValueError):
                current_span.reset(self._token)
        self._span.see(error)
        owns_the_attempt = self._run is not None and self._run.span is self._span
        if not owns_the_attempt:
            self._span.end()
        if self._run is None and self._outer is None and not _in_running_loop():
            self._span.flush()
        if error is None or not isinstance(deciding(error), NoContentFound) or self._outer is not None:
            return False
        release(error)
        return True

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)


def _text(given: object) -> str:
    """A text for the history, whatever a program gives: recording never fails the work."""
    return given if isinstance(given, str) else "" if given is None else str(given)


def _number(given: object) -> float | None:
    """A number for the history, or None for anything else."""
    if isinstance(given, int):
        return given if abs(given) < _LARGEST else None
    try:
        number = float(given)  # type: ignore[arg-type]  # of another kind, such as numpy's
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _in_running_loop() -> bool:
    # On a running loop, waiting for the history would block it.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
