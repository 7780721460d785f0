"""The built-in actors; `dramatiq worker.tasks` runs them.

Importing it binds the broker, from the settings, where the program has set none.
"""

from worker.broker import ensure_broker
from worker.extras import require

require("tasks", "worker.tasks, the built-in actors,")
ensure_broker()

from worker.tasks import conversations  # noqa: E402 - its actors need the broker

__all__ = ["conversations"]
