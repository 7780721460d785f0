"""Run async services as Dramatiq background work.

The names that most programs need are here. `docs/reference/names.md` lists all public names.
Importing this package loads nothing else: each name is loaded when a program first uses it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.attempts.attempt import Attempt
    from worker.attempts.run import current_attempt
    from worker.attempts.status import ProcessingStatusContext
    from worker.bridge import loop_resource, run_async_in_new_loop, run_async_in_shared_loop, run_in_thread_pool
    from worker.broker import Broker, create_broker
    from worker.broker.declaring import actor
    from worker.broker.named_leases import lease
    from worker.broker.sent import Sent
    from worker.errors import Fatal, NoContentFound, RetryLater
    from worker.settings import Settings

__all__ = [
    "Attempt",
    "Broker",
    "Fatal",
    "NoContentFound",
    "ProcessingStatusContext",
    "RetryLater",
    "Sent",
    "Settings",
    "actor",
    "create_broker",
    "current_attempt",
    "lease",
    "loop_resource",
    "run_async_in_new_loop",
    "run_async_in_shared_loop",
    "run_in_thread_pool",
]

# The imports above, for Python itself: where each name is loaded from.
_HOMES = {
    "Attempt": "worker.attempts.attempt",
    "Broker": "worker.broker",
    "Fatal": "worker.errors",
    "NoContentFound": "worker.errors",
    "ProcessingStatusContext": "worker.attempts.status",
    "RetryLater": "worker.errors",
    "Sent": "worker.broker.sent",
    "Settings": "worker.settings",
    "actor": "worker.broker.declaring",
    "create_broker": "worker.broker",
    "current_attempt": "worker.attempts.run",
    "lease": "worker.broker.named_leases",
    "loop_resource": "worker.bridge",
    "run_async_in_new_loop": "worker.bridge",
    "run_async_in_shared_loop": "worker.bridge",
    "run_in_thread_pool": "worker.bridge",
}
_MODULES = ("bridge", "errors", "history", "testing")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"worker.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found  # the next use does not come here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
