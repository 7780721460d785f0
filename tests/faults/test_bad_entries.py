"""Entries and messages that nobody can read, among good ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import nothing_is_left, settle
from tests.support.runners import RUNNERS
from tests.support.scene import Scene, scene
from worker.history.query import ask, one_message

GARBAGE = (
    b"\xff\xfe no text at all \x00",
    b"",
    b"[1, 2]",
    b"null",
    b'{"queue_name": "default"}',
    b"[" * 100_000,
    b'{"queue_name":"elsewhere","actor_name":"work","args":[],"kwargs":{},"options":{},"message_id":"no","message_timestamp":1}',
    b'{"queue_name":7,"actor_name":null,"args":3,"kwargs":[],"options":"x","message_id":{},"message_timestamp":"y"}',
)


def test_what_nobody_can_read_is_a_dead_letter_by_itself_with_its_bytes(tmp_path: Path) -> None:
    """Garbage in the stream, messages turned into garbage, and an unknown actor hold up none of their neighbours."""
    with scene(tmp_path, WORKER_UNKNOWN_ACTOR="1s") as opened:
        good: list[str] = []
        spoilt: dict[str, bytes] = {}
        for bytes_ in GARBAGE:
            good += opened.send_to_both("work", [[1]])
            spoilt |= dict.fromkeys(opened.send_to_both("work", [[1]]), bytes_)
        for message_id, bytes_ in spoilt.items():
            spoil(opened, message_id, bytes_)
        unknown = opened.send("nobody_knows_it")
        entry: Any = {b"\xff": b"\x00\xfe", b"i": b"x"}
        for runner in RUNNERS:
            opened.client.xadd(f"{{worker}}:q:default:normal:{runner}", entry)
            opened.client.xadd(f"{{worker}}:q:default:normal:{runner}", {"i": "whose-record-is-gone"})
        good += opened.send_to_both("work", [[1]] * 10)
        worker = opened.start_ready("a")
        opened.wait_for_end(len(good) + len(spoilt) + 3)
        known = {*good, *spoilt, unknown}
        strays = {key.decode().removeprefix("{worker}:m:") for key in opened.client.scan_iter("{worker}:m:*")} - known
        unread = [*strays, *spoilt]
        assert len(strays) == 2
        states = settle(opened, [*good, *unread, unknown], unread=unread)
        assert states == {"completed": len(good), "dead": len(unread) + 1}
        for message_id, bytes_ in spoilt.items():
            message = ask(opened.client, one_message(message_id))
            assert message is not None
            assert message.payload == bytes_
            [told] = [event.error.text for event in message.events if event.error is not None]
            assert f"{len(bytes_)} bytes" in told
        for stray in strays:
            message = ask(opened.client, one_message(stray))
            assert message is not None
            assert base64.b64decode(json.loads(message.payload)["undecodable"]) == b"\xff \x00\xfe i x"
            [told] = [event.error.text for event in message.events if event.error is not None]
            assert told == "not a message: 8 bytes that are no JSON"
        assert not worker.tells()["errors"]


@pytest.mark.parametrize("lines", [0, 1])
def test_a_record_that_nobody_can_read_holds_up_none_and_is_kept(tmp_path: Path, lines: int) -> None:
    """What stands where a message's record was is left there; a dead letter names it, and its neighbours complete."""
    with scene(tmp_path) as opened:
        good = opened.send_to_both("work", [[1]] * 5)
        lost = opened.send("work", 1)
        record: Any = opened.client.get(f"{{worker}}:m:{lost}")
        left = b"".join(record.splitlines(keepends=True)[:lines]) or b"garbage"
        opened.client.set(f"{{worker}}:m:{lost}", left)
        good += opened.send_to_both("work", [[1]] * 5)
        worker = opened.start_ready("a")
        opened.wait_for_end(21)
        nothing_is_left(opened.client, ())
        records = {key.decode().removeprefix("{worker}:m:") for key in opened.client.scan_iter("{worker}:m:*")}
        (letter,) = records - {*good, lost}
        message = ask(opened.client, one_message(letter))
        assert message is not None
        assert message.state == "dead"
        assert base64.b64decode(json.loads(message.payload)["undecodable"]).decode() == f"i {lost} f 1"
        assert opened.client.get(f"{{worker}}:m:{lost}") == left
        assert opened.states()["completed"] == 20
        assert not worker.tells()["errors"]


def spoil(opened: Scene, message_id: str, bytes_: bytes) -> None:
    """Overwrites a message in its record."""
    key = f"{{worker}}:m:{message_id}"
    record: Any = opened.client.get(key)
    head, _, events = record.split(b"\n", 2)
    opened.client.set(key, b"\n".join((head, bytes_, events)))
