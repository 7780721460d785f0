"""Masks secrets in texts, so that no log, error or page shows them."""

from __future__ import annotations

import re

# Up to the last "@", because a password may hold any character. Masking too much is better than too little.
_PASSWORD = re.compile(r"(://[^:/@\s]*):\S+@")
_SECRET = "pass|pwd|secret|token|key|auth|cred|sig|%"  # noqa: S105 - names of parameters
_SECRET_PARAMETER = re.compile(rf"([?&][^=&\s]*(?:{_SECRET})[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def mask_url(url: str) -> str:
    """The URL with masked passwords and masked secret parameters, for logs, errors and pages."""
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
