"""`ProcessingStatusContext`, as users import it; `worker.attempts` is what it is made of."""

from __future__ import annotations

from worker.attempts.status import ProcessingStatusContext

__all__ = ["ProcessingStatusContext"]
