"""`worker web`: every question to the history and every action as JSON, health, metrics, a live tail, and pages.

Thin: what is asked and done belongs to `worker.history` and `worker.broker`. `create_app` makes an application that
runs by itself or is mounted in another.
"""

from worker.ground.extras import require

require("web", "the web API")

from worker.web.app import create_app  # noqa: E402 - without the extra it cannot be imported

__all__ = ["create_app"]
