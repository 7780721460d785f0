"""The state of a worker process at its server, as others may ask for it: plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a worker process at its server.

    Attributes:
        errors: The present problems; empty if there are none.
        lease_held: Whether the taken messages certainly belong to this process.
        ends_waiting: The number of ends that are not stored yet.
        events_dropped: The number of dropped events: STARTED, progress, and without memory also others.
        ends_refused: The number of ends that came too late, because another process had the message.
    """

    errors: tuple[str, ...]
    lease_held: bool
    ends_waiting: int
    events_dropped: int
    ends_refused: int
