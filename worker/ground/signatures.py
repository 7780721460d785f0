"""The signatures of functions that programs declare. It must never fail because of their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The function's signature, with its annotations if Python can evaluate all of them; else they are texts."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation is a program, and may raise anything
        # It may have names that only a type checker can see, or be something that only a type checker can do.
        return inspect.signature(function)
