"""Typed errors for a model endpoint's failures, and its TLS context, for clients with any HTTP library."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from worker.errors import Fatal, RetryLater, WorkerError

_MOST_DELAY = timedelta(hours=1)
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


class ModelUnavailable(WorkerError):
    """The model's endpoint cannot be reached, or gives an answer that is not valid; the message is retried."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The process's one TLS context. It takes 16 ms to make, too long for each client: a client lives with its loop."""
    return ssl.create_default_context()


def failure(status: int, said: str, *, retry_after: str, prefix: str) -> WorkerError:
    """The error for an answer without success: `RetryLater`, `ModelUnavailable` or `Fatal`.

    Args:
        status: The answer's HTTP status.
        said: The error's text, one line for the history.
        retry_after: The answer's header of that name, or an empty text.
        prefix: The prefix of the endpoint's settings.
    """
    if status != _TOO_MANY_REQUESTS and status < _SERVER_ERRORS:
        return Fatal(f"{said}; check {prefix}_URL, _MODEL and _API_KEY")
    delay = _delay(retry_after)
    return ModelUnavailable(said) if delay is None else RetryLater(min(delay, _MOST_DELAY), said)


def _delay(header: str) -> timedelta | None:
    """The delay in a `Retry-After` header, as seconds or as a date (RFC 9110, section 10.2.3), or None."""
    try:
        return timedelta(seconds=max(0.0, float(header)))
    except (ValueError, OverflowError):
        pass
    try:
        return max(timedelta(0), parsedate_to_datetime(header) - datetime.now(UTC))
    except (ValueError, TypeError):
        return None
