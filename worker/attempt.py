"""The running attempt, as users import it."""

from __future__ import annotations

from worker.attempts.attempt import Attempt
from worker.attempts.run import current_attempt

__all__ = ["Attempt", "current_attempt"]
