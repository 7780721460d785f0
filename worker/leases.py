"""`lease`, as users import it; `worker.broker.named_leases` implements it."""

from __future__ import annotations

from worker.broker.named_leases import Lease, lease

__all__ = ["Lease", "lease"]
