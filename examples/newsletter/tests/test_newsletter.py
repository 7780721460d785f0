"""The actor, on a stub broker: no server, no waiting for retries."""

from __future__ import annotations

import email
from datetime import timedelta
from email import policy
from pathlib import Path

import dramatiq
import pytest

from newsletter import actors, outbox
from newsletter.actors import send_newsletter
from worker.testing import stub_worker

READER = "ada@example.org"
TEN_LINES = 10


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outbox's folder, which exists."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    monkeypatch.setenv("NEWSLETTER_OUTBOX", str(folder))
    return folder


def names(folder: Path) -> list[str]:
    """The files in the outbox."""
    return sorted(file.name for file in folder.iterdir())


def test_an_issue_is_delivered(folder: Path) -> None:
    with stub_worker() as worker:
        send_newsletter.send("issue-1", READER)
        worker.join()
        assert worker.states() == ["started", "completed"]
        assert worker.dead_letters == []
        assert [dict(event.subject) for event in worker.events] == [{"issue": "issue-1", "subscriber": READER}] * 2
    assert names(folder) == [f"issue-1.{READER}.eml"]
    message = email.message_from_bytes((folder / f"issue-1.{READER}.eml").read_bytes(), policy=policy.default)
    assert (message["To"], message["Subject"]) == (READER, "First light")
    assert "Zürcher" in message.get_content()


def test_an_issue_that_is_delivered_twice_is_there_once(folder: Path) -> None:
    with stub_worker() as worker:
        for _ in range(2):
            send_newsletter.send("issue-1", READER)
        worker.join()
        assert sorted(worker.states()) == ["completed"] * 2 + ["started"] * 2
    assert names(folder) == [f"issue-1.{READER}.eml"]


def test_many_messages_share_the_outbox(folder: Path) -> None:
    # More threads than the outbox takes at once: its semaphore makes them wait for each other, on one loop.
    readers = [f"reader-{number:02}@example.org" for number in range(20)]
    with stub_worker(threads=4 * outbox.DELIVERIES_AT_ONCE) as worker:
        for reader in readers:
            send_newsletter.send("issue-1", reader)
        worker.join()
        assert sorted(worker.states()) == ["completed"] * 20 + ["started"] * 20
    assert names(folder) == [f"issue-1.{reader}.eml" for reader in readers]


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        ("issue-99", "there is no issue 'issue-99'"),
        ("issue-2", "nothing has been written in issue 'issue-2' yet"),
        ("../issues/issue-1", "there is no issue '../issues/issue-1'"),
    ],
)
def test_without_an_issue_there_is_nothing_to_do(folder: Path, issue: str, reason: str) -> None:
    with stub_worker() as worker:
        send_newsletter.send(issue, READER)
        worker.join()
        assert [(event.state, event.attempt) for event in worker.events] == [("started", 1), ("skipped", 1)]
        assert [event.text for event in worker.events][-1] == reason
        assert worker.dead_letters == []
    assert names(folder) == []


@pytest.mark.parametrize("address", ["", "ada", "ada@", "ada@example.org\nBcc: bob@example.org", "../ada@example.org"])
def test_an_address_that_is_none_is_never_tried_again(folder: Path, address: str) -> None:
    with stub_worker() as worker:
        message = send_newsletter.send("issue-1", address)
        worker.join()
        assert [(event.state, event.attempt) for event in worker.events] == [("started", 1), ("failed", 1)]
        assert worker.dead_letters == [message.message_id]
        error = [event.error for event in worker.events][-1]
        assert error is not None
        assert error.text == f"{address!r} is not an address"
    assert names(folder) == []


class Recovery(dramatiq.Middleware):
    """The outbox is no longer busy when an attempt has ended."""

    def __init__(self, busy: Path) -> None:
        self._busy = busy

    def after_process_message(self, *_: object, **__: object) -> None:
        """Ends the outbox's being busy."""
        self._busy.unlink(missing_ok=True)


def test_a_busy_outbox_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BUSY_FOR", timedelta(milliseconds=1))
    busy = folder / ".busy"
    busy.touch()
    with stub_worker() as worker:
        worker.broker.add_middleware(Recovery(busy))
        send_newsletter.send("issue-1", READER)
        worker.join()
        assert [(event.state, event.attempt) for event in worker.events] == [
            ("started", 1),
            ("snoozed", 1),
            ("started", 2),
            ("completed", 2),
        ]
        assert [event.error.type for event in worker.events if event.error] == ["worker.errors.RetryLater"]
        assert worker.dead_letters == []
    assert names(folder) == [f"issue-1.{READER}.eml"]


def test_the_actors_take_ten_lines() -> None:
    assert len(Path(actors.__file__).read_text(encoding="utf-8").splitlines()) <= TEN_LINES
