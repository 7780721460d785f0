"""The work itself: plain asyncio, callable from a script or a test just as well as from an actor."""

from __future__ import annotations

import re
from email.message import EmailMessage
from pathlib import Path

from newsletter.outbox import open_outbox
from worker import Fatal, NoContentFound, run_in_thread_pool

ISSUES = Path(__file__).with_name("issues")
SENDER = "The Newsletter <newsletter@example.org>"

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", re.ASCII)


async def send_newsletter(issue: str, subscriber: str) -> int:
    """Delivers an issue to a subscriber; a second delivery replaces the first.

    Returns:
        The size of the message in bytes.

    Raises:
        Fatal: The subscriber's address is not valid.
        NoContentFound: There is no such issue, or it is empty.
        RetryLater: The outbox is busy.
    """
    if not _ADDRESS.fullmatch(subscriber):
        raise Fatal(f"{subscriber!r} is not an address")
    text = await run_in_thread_pool(read_issue, issue)
    outbox = await open_outbox()
    return await outbox.deliver(compose(text, subscriber), name=f"{issue}.{subscriber}.eml")


def read_issue(issue: str) -> str:
    """The Markdown of an issue.

    Raises:
        NoContentFound: There is no such issue, or it is empty.
    """
    # Looked up among the existing files, so that no name leads out of the folder.
    file = {file.stem: file for file in ISSUES.glob("*.md")}.get(issue)
    if file is None:
        raise NoContentFound(f"there is no issue {issue!r}")
    text = file.read_text(encoding="utf-8").strip()
    if not text:
        raise NoContentFound(f"nothing has been written in issue {issue!r} yet")
    return text


def compose(text: str, subscriber: str) -> EmailMessage:
    """An issue as a message to a subscriber; its first line is the subject."""
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = subscriber
    message["Subject"] = text.splitlines()[0].lstrip("# ")
    message.set_content(text, subtype="markdown")
    return message
