"""`worker web`: every question to the history and every action as JSON, health, metrics, a live tail, and pages.

It is thin: `worker.history` answers the questions, and `worker.operations` takes the actions. `create_app` makes an
application that runs by itself or is mounted in another.
"""

from worker.ground.extras import require

require("web", "the web API")

from worker.web.app import create_app  # noqa: E402 - without the extra it cannot be imported

__all__ = ["create_app"]
