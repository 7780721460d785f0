"""The outbox: a folder from which a mail server takes the messages to send."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from pathlib import Path

from worker import RetryLater, loop_resource, run_in_thread_pool

DELIVERIES_AT_ONCE = 4
BUSY_FOR = timedelta(seconds=30)
"""The delay before a retry when the outbox is busy."""


class Outbox:
    """Takes a few messages at once, and none while the mail server keeps a file `.busy` in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Bound to the event loop in which it is used, as an HTTP client or a database's pool would be.
        self._slots = asyncio.Semaphore(DELIVERIES_AT_ONCE)

    async def deliver(self, message: EmailMessage, *, name: str) -> int:
        """Puts a message there, in place of an earlier one with this name, and returns its size in bytes.

        Raises:
            RetryLater: The outbox is busy.
        """
        async with self._slots:
            return await run_in_thread_pool(self._write, message.as_bytes(policy=policy.SMTP), name)

    def _write(self, content: bytes, name: str) -> int:
        if (self._folder / ".busy").exists():
            raise RetryLater(BUSY_FOR, "the outbox is busy")
        self._folder.mkdir(parents=True, exist_ok=True)
        # Renamed when it is complete: the mail server never sees a part of a message.
        part = self._folder / f".{uuid.uuid4().hex}.part"
        try:
            part.write_bytes(content)
            part.replace(self._folder / name)
        finally:
            part.unlink(missing_ok=True)
        return len(content)


@loop_resource
async def open_outbox() -> AsyncIterator[Outbox]:
    """The one outbox of this process, in the folder that `NEWSLETTER_OUTBOX` names."""
    yield Outbox(Path(os.environ.get("NEWSLETTER_OUTBOX", "outbox")))
