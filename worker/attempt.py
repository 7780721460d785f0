"""The attempt that runs now, as users import it; `worker.attempts` implements it."""

from __future__ import annotations

from worker.attempts.attempt import Attempt
from worker.attempts.run import current_attempt

__all__ = ["Attempt", "current_attempt"]
