"""`ProcessingStatusContext`, as users import it; `worker.attempts` implements it."""

from __future__ import annotations

from worker.attempts.status import ProcessingStatusContext

__all__ = ["ProcessingStatusContext"]
