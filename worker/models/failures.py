"""What clients of a model's endpoint share, whichever library they ask with: what its failures mean, and TLS."""

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
    """The model's endpoint cannot be reached, or answers nonsense; the message is retried."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The process's one TLS context: it takes 16 ms to make, and a client lives only as long as its loop."""
    return ssl.create_default_context()


def failure(status: int, said: str, *, retry_after: str, prefix: str) -> WorkerError:
    """What an answer that is no success means.

    Args:
        status: Of the answer.
        said: One line for the history.
        retry_after: The header of that name, or nothing.
        prefix: What the settings of the endpoint begin with.
    """
    if status != _TOO_MANY_REQUESTS and status < _SERVER_ERRORS:
        return Fatal(f"{said}; check {prefix}_URL, _MODEL and _API_KEY")
    delay = _delay(retry_after)
    return ModelUnavailable(said) if delay is None else RetryLater(min(delay, _MOST_DELAY), said)


def _delay(header: str) -> timedelta | None:
    """What the server says: seconds, or a date (RFC 9110, section 10.2.3)."""
    try:
        return timedelta(seconds=max(0.0, float(header)))
    except (ValueError, OverflowError):
        pass
    try:
        return max(timedelta(0), parsedate_to_datetime(header) - datetime.now(UTC))
    except (ValueError, TypeError):
        return None
