"""Run async services as Dramatiq background work.

The names that most programs need are here. `docs/reference/names.md` lists all public names.
"""

from worker.actor import actor
from worker.attempt import current_attempt
from worker.bridge import loop_resource, run_async_in_new_loop, run_in_thread_pool
from worker.broker import create_broker
from worker.errors import Fatal, NoContentFound, RetryLater
from worker.leases import lease
from worker.settings import Settings
from worker.status import ProcessingStatusContext

__all__ = [
    "Fatal",
    "NoContentFound",
    "ProcessingStatusContext",
    "RetryLater",
    "Settings",
    "actor",
    "create_broker",
    "current_attempt",
    "lease",
    "loop_resource",
    "run_async_in_new_loop",
    "run_in_thread_pool",
]
