"""What the URL of a page asks for, and the filters that it means."""

from __future__ import annotations

from dataclasses import dataclass, fields
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from worker.history.filters import EventFilter, MessageFilter, read_event_filter, read_message_filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the URL asks for, as a person wrote it; nothing asks for everything."""

    state: tuple[str, ...]
    subject: tuple[str, ...]
    actor: str
    queue: str
    error: str
    cause: str
    since: str
    until: str

    @classmethod
    def read(cls, given: QueryParams) -> Asked:
        """Reads the URL; forms send what is empty, too."""
        lists = {name: tuple(one for one in given.getlist(name) if one) for name in ("state", "subject")}
        texts = {name: given.get(name, "").strip() for name in ("actor", "queue", "error", "cause", "since", "until")}
        return cls(**lists, **texts)  # type: ignore[arg-type]  # by name

    def query(self) -> str:
        """The same for a URL, of this site and of the API."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return urlencode({name: value for name, value in parts.items() if value}, doseq=True)

    def message_filter(self) -> MessageFilter:
        """Which messages.

        Raises:
            ConfigurationError: Something cannot be read.
        """
        return read_message_filter(
            states=self.state,
            actor=self.actor,
            queue=self.queue,
            subject=self.subject,
            error=self.error,
            cause=self.cause,
            since=self.since,
            until=self.until,
        )

    def event_filter(self) -> EventFilter:
        """Which events.

        Raises:
            ConfigurationError: Something cannot be read.
        """
        return read_event_filter(
            state=self.state[0] if self.state else None,
            actor=self.actor,
            queue=self.queue,
            subject=self.subject,
            error=self.error,
        )
