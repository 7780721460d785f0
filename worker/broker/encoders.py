"""The encoder that a program has set with `dramatiq.set_encoder`. It must give JSON, or no broker is made.

Scripts on the server, commands and pages read what it gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dramatiq import get_encoder
from dramatiq.encoder import Encoder, JSONEncoder

from worker.errors import ConfigurationError

_PROBE = {
    "queue_name": "default",
    "actor_name": "probe",
    "args": [1],
    "kwargs": {"name": "é"},
    "options": {},
    "message_id": "1",
    "message_timestamp": 1,
}


def own_encoder() -> Encoder | None:
    """The encoder that the program has set, or None for Dramatiq's own."""
    encoder = get_encoder()
    return None if type(encoder) is JSONEncoder else encoder


def encoded(own: Encoder, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what JSON gives
    """The plain fields that a program's own encoder makes of a message's.

    Raises:
        ValueError: The encoder failed, with whatever error, or gave no JSON.
    """
    try:
        return json.loads(own.encode(dict(fields)))
    except Exception as error:
        raise ValueError(f"{type(own).__name__} raised {type(error).__name__}: {error}") from error


def check_encoder() -> None:
    """Refuses an encoder that does not give JSON.

    Raises:
        ConfigurationError: The program has set one.
    """
    own = own_encoder()
    if own is None:
        return
    try:
        is_json = json.loads(own.encode(_PROBE)) == _PROBE
    except Exception as error:
        raise _refused(own) from error
    if not is_json:
        raise _refused(own)


def _refused(encoder: Encoder) -> ConfigurationError:
    return ConfigurationError(
        f"dramatiq.set_encoder({type(encoder).__name__}()): messages are JSON here, which commands and pages read; "
        "set an encoder that gives JSON, or none"
    )
