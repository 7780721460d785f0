"""The built-in actors; `dramatiq worker.tasks` runs them.

The import binds the broker, from the settings, if the program has not set one. It raises `ConfigurationError` if a
setting of the built-in application is bad.
"""

import importlib

from worker import Settings
from worker.broker import ensure_broker
from worker.ground.extras import is_installed, require

require("tasks", "worker.tasks, the built-in actors,")
ensure_broker()

from worker.tasks import conversations  # noqa: E402 - its actors need the broker

if is_installed("recall"):
    importlib.import_module("worker.tasks.recall")
    importlib.import_module("worker.tasks.repositories")

Settings.read_all()

__all__ = ["conversations"]
