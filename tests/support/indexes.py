"""Whether the indexes agree with the messages: every record against everything that is kept to find and count it.

It reads keys as `docs/reference/redis.md` describes them, at a moment when nothing runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from worker.history.answers import StoredMessage
from worker.history.events import State
from worker.history.query import ask, one_message
from worker.server.client import RedisClient

SEGMENT = 4096
TIME_BYTES = 6
BYTES_AROUND = 200
FINAL = ("completed", "skipped", "dead", "cancelled")
OF_EVENTS = ("ended:", "error:", "cause:")


def stored_messages(client: RedisClient) -> dict[str, StoredMessage]:
    """Every record there is."""
    messages = {}
    for key in client.scan_iter("{worker}:m:*", count=1000):
        message_id = key.decode().removeprefix("{worker}:m:")
        message = ask(client, one_message(message_id))
        assert message is not None, f"{message_id} cannot be read"
        messages[message_id] = message
    return messages


def indexes_agree(client: RedisClient, *, events_dropped: bool = False) -> dict[str, StoredMessage]:
    """Checks everything; answers with the messages.

    Args:
        client: Of the server.
        events_dropped: Whether the server could not take every event: then the marks know more than the records.
    """
    messages = stored_messages(client)
    _segments_agree(client, messages)
    _marks_agree(client, messages, events_dropped=events_dropped)
    _subjects_agree(client, messages)
    _failures_agree(client, messages)
    _counts_agree(client, messages)
    _bytes_agree(client, messages)
    _places_agree(client, messages)
    asked = {key.decode().removeprefix("{worker}:cancel:") for key in client.scan_iter("{worker}:cancel:*")}
    assert asked <= messages.keys()
    return messages


def _segments_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    newest = int(client.get("{worker}:seq") or 0)
    kept = Counter(message.number // SEGMENT for message in messages.values())
    assert _numbers(client, "{worker}:kept") == {str(segment): number for segment, number in kept.items()}
    changed = _numbers(client, "{worker}:changed")
    began: Any = client.zrange("{worker}:segments", 0, -1, withscores=True)
    segments = {int(segment): at for segment, at in began}
    assert kept.keys() <= segments.keys() <= kept.keys() | {newest // SEGMENT}
    for message in messages.values():
        assert message.number < newest
        at = round(message.since.timestamp() * 1000)
        segment = message.number // SEGMENT
        assert client.lindex(f"{{worker}}:x:{segment}:ids", message.number % SEGMENT) == message.id.encode()
        assert at >= segments[segment]
        place = message.number % SEGMENT * TIME_BYTES
        told: Any = client.getrange(f"{{worker}}:at:{segment}", place, place + TIME_BYTES - 1)
        assert int.from_bytes(told, "big") == at, f"{message.id} is {message.state} since {at}, its index says {told!r}"
        times: Any = client.get(f"{{worker}}:at:{segment}")
        if times is not None:
            place = message.number % SEGMENT * 6
            assert int.from_bytes(times[place : place + 6]) == at, message
        if message.state != "delayed":
            assert changed[str(segment)] >= at, f"{message.id} changed at {at}, its segment at {changed[str(segment)]}"
        if message.state in FINAL:
            assert client.zscore(f"{{worker}}:ended:{message.state}", str(segment)) is not None


def _marks_agree(client: RedisClient, messages: dict[str, StoredMessage], *, events_dropped: bool) -> None:
    by_number = {message.number: message for message in messages.values()}
    expected = {(message.id, mark) for message in messages.values() for mark in _marks(message)}
    found = set()
    listed: Any = client.smembers("{worker}:names")
    names = {name.decode() for name in listed}
    for key in client.scan_iter("{worker}:x:*", _type="string"):
        segment, _, name = key.decode().removeprefix("{worker}:x:").partition(":")
        assert name in names, f"{key!r} is not listed, and would never be dropped"
        bits: Any = client.get(key)
        for position in _positions(bits):
            message = by_number.get(int(segment) * SEGMENT + position)
            assert message is not None, f"{name} of {position} in {segment}, which is no message"
            if not (message.events_left_out and name.startswith(OF_EVENTS)):
                found.add((message.id, name))
    wrong = {one for one in expected ^ found if not (events_dropped and one[1].startswith(OF_EVENTS))}
    told = [(mark, "found" if (id_, mark) in found else "missing", messages[id_]) for id_, mark in sorted(wrong)[:3]]
    assert not wrong, f"{len(wrong)} marks are wrong, such as {told}"


def _subjects_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    expected = {
        (f"{name}={value}", message.id, message.number)
        for message in messages.values()
        for name, value in message.subject.items()
    }
    found = set()
    for key in client.scan_iter("{worker}:s:*"):
        members: Any = client.zrange(key, 0, -1, withscores=True)
        found |= {(key.decode().removeprefix("{worker}:s:"), one.decode(), int(number)) for one, number in members}
    assert found == expected


def _failures_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    listed: Any = client.zrange("{worker}:failures", 0, -1)
    found = {int(number) for number in listed}
    assert found <= {message.number for message in messages.values()}, "what is gone has failed"
    for message in messages.values():
        if not message.events_left_out:
            assert (message.number in found) == (message.failed is not None), message


def _counts_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    assert _numbers(client, "{worker}:states") == Counter(message.state for message in messages.values())
    waiting = [message for message in messages.values() if message.state not in FINAL]
    depths = Counter(f"{message.queue}\t{message.state}" for message in waiting)
    assert _numbers(client, "{worker}:depths") == depths


def _bytes_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    expected: Counter[str] = Counter()
    listed: Any = client.zrange("{worker}:arguments", 0, -1)
    segments = {int(segment) for segment in listed}
    for message in messages.values():
        if message.state in FINAL:
            expected[message.state] += client.strlen(f"{{worker}}:m:{message.id}") + BYTES_AROUND
            if message.state != "dead" and not message.arguments_dropped:
                assert message.number // SEGMENT in segments, f"nobody would find the arguments of {message.id}"
    found = _numbers(client, "{worker}:bytes")
    found.pop("warned", None)
    assert found == expected


def _places_agree(client: RedisClient, messages: dict[str, StoredMessage]) -> None:
    due: Any = client.zrange("{worker}:due", 0, -1, withscores=True)
    delayed = [message for message in messages.values() if message.state == "delayed"]
    assert {id_.decode(): at for id_, at in due} == {one.id: round(one.since.timestamp() * 1000) for one in delayed}
    entries: Counter[str] = Counter()
    for stream in client.scan_iter("{worker}:q:*", _type="stream"):
        added: Any = client.xrange(stream)
        for _, fields in added:
            message = messages.get(fields.get(b"i", b"").decode())
            if message is not None and int(fields[b"f"]) == message.fence:
                assert stream.decode().startswith(f"{{worker}}:q:{message.queue}:")
                entries[message.id] += 1
    in_streams = [message.id for message in messages.values() if message.state in ("queued", "running")]
    assert entries == Counter(in_streams), "what waits or runs has one entry, and nothing else has any"


def _marks(message: StoredMessage) -> set[str]:
    marks = {f"actor:{message.actor}", f"queue:{message.queue}", f"state:{message.state}"}
    if message.arguments_dropped:
        marks.add("bare")
    if message.events_left_out:
        return marks
    cause = "unknown"
    for event in message.events:
        if event.state in (State.FAILED, State.SNOOZED, State.LOST, State.CANCELLED):
            marks.add(f"ended:{event.state.value}")
        if event.error is not None and event.error.type:
            marks.add(f"error:{event.error.type}")
        if event.state.is_final:
            was_cut_off = event.state is State.LOST or (event.state is State.CANCELLED and event.error is None)
            cause = "lost" if was_cut_off else event.error.type if event.error is not None else "unknown"
    return marks | ({f"cause:{cause}"} if message.state == "dead" else set())


def _numbers(client: RedisClient, key: str) -> dict[str, int]:
    found: Any = client.hgetall(key)
    return {name.decode(): int(number) for name, number in found.items() if int(number) or key == "{worker}:changed"}


def _positions(bits: bytes) -> Iterable[int]:
    for index, byte in enumerate(bits):
        for bit in range(8):
            if byte & (128 >> bit):
                yield index * 8 + bit
