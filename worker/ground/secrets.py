"""Secrets in texts: what must never be seen in a log, an error or on a page."""

from __future__ import annotations

import re

# Up to the last "@": a password may hold any character, and too much masked is better than too little.
_PASSWORD = re.compile(r"(://[^:/@\s]*):\S+@")
_SECRET = "pass|pwd|secret|token|key|auth|cred|sig|%"  # noqa: S105 - how parameters that hold one are called
_SECRET_PARAMETER = re.compile(rf"([?&][^=&\s]*(?:{_SECRET})[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def mask_url(url: str) -> str:
    """The URL with its passwords masked, also those among its parameters, for logs, errors and pages."""
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
