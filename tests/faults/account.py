"""The account at the end of a test: what was sent has ended, once, and nothing is left behind.

It reads keys as `docs/reference/redis.md` describes them: it is the history that is checked here, not its queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

import redis

from tests.faults.scene import Run, Scene
from worker.history.answers import StoredMessage
from worker.history.events import State, StatusEvent
from worker.history.query import ask, one_message

SEGMENT = 4096
FINAL = ("completed", "skipped", "dead", "cancelled")
NOBODY: frozenset[str] = frozenset()


def settle(
    scene: Scene,
    sent: Collection[str],
    *,
    delayed: Collection[str] = NOBODY,
    unread: Collection[str] = NOBODY,
    events_dropped: bool = False,
) -> Counter[str]:
    """Checks everything; answers how many messages are in each state.

    Args:
        scene: Where everything has come to an end.
        sent: The ids of all messages.
        delayed: Those that are due in the far future.
        unread: Those that are dead letters because nobody could read them.
        events_dropped: Whether the server could not take every event.
    """
    client = scene.client
    assert len(set(sent)) == len(sent)
    nothing_is_left(client, delayed)
    messages = {}
    for message_id in _ids(client):
        message = ask(client, one_message(message_id))
        assert message is not None, f"{message_id} cannot be read"
        messages[message_id] = message
    assert messages.keys() == set(sent), (
        f"{len(messages.keys() - set(sent))} too many, {len(set(sent) - messages.keys())} missing"
    )
    for message in messages.values():
        assert (message.state == "delayed") == (message.id in delayed), message
        assert message.state in (*FINAL, "delayed"), message
        if message.id not in unread and not events_dropped:
            events_are_in_order(message, sent_again=message.id in scene.sent_again)
    each_was_run(messages, scene.ledger())
    indexes_agree(client, messages, events_dropped=events_dropped)
    if not events_dropped:
        counters_agree(client, [message for message in messages.values() if message.id not in unread])
    states = Counter(message.state for message in messages.values())
    assert states == scene.states(), f"{dict(states)} are stored, counted are {dict(scene.states())}"
    return states


def nothing_is_left(client: redis.Redis, delayed: Collection[str]) -> None:
    """Streams are empty, nothing is pending, nothing is delayed, no unique key is held."""
    for stream in client.scan_iter("worker:q:*", _type="stream"):
        assert client.xlen(stream) == 0, f"{stream!r} holds {client.xrange(stream)}"
        for group in client.xinfo_groups(stream):
            assert group["pending"] == 0, f"{stream!r}: {client.xinfo_consumers(stream, 'workers')}"
    due: Any = client.zrange("worker:due", 0, -1)
    assert {one.decode() for one in due} == set(delayed)
    assert not list(client.scan_iter("worker:u:*"))


def events_are_in_order(message: StoredMessage, *, sent_again: bool) -> None:
    """Each attempt has one set of events, from STARTED to one that ends it, and the last says what became of it."""
    # Whose sender got no answer, it may have ended before it was sent again; then it ran again.
    earlier_ends = set(State) if sent_again else {State.FAILED, State.LOST, State.CANCELLED}
    attempts = [
        (number, [event.state for event in events if event.state is not State.PROGRESS])
        for number, events in groupby(message.events, key=lambda event: event.attempt)
    ]
    told = f"{message.state} after {message.attempts}: {attempts}"
    if message.state == "delayed":
        assert not attempts, told
        return
    assert [number for number, _ in attempts] == list(range(1, len(attempts) + 1)), told
    assert message.attempts == len(attempts), told
    *earlier, (_, last) = attempts
    for _, states in earlier:
        assert _is_whole(states, earlier_ends), told
    expected = {State.FAILED, State.LOST} if message.state == "dead" else {State(message.state)}
    assert _is_whole(last, expected) or _never_ran(message.events), told


def _is_whole(states: Sequence[State], ends: set[State]) -> bool:
    # A process that dies as it begins an attempt may have told that it does, but not more.
    return states[-1] in ends and (list(states[:-1]) == [State.STARTED] or list(states) == [State.LOST])


def _never_ran(events: Iterable[StatusEvent]) -> bool:
    # Its actor is unknown: it is told so, and nothing has started.
    return [event.error.type for event in events if event.error] == ["dramatiq.errors.ActorNotFound"]


def each_was_run(messages: dict[str, StoredMessage], ledger: list[Run]) -> None:
    """Each completed message has been done at least once, and no delivery has been begun twice."""
    done = {run.message_id for run in ledger if run.what == "done"}
    completed = {message.id for message in messages.values() if message.state == "completed"}
    assert completed <= done, f"{len(completed - done)} completed without having been run"
    begun = Counter((run.message_id, run.fence) for run in ledger if run.what == "began")
    assert not [one for one, times in begun.items() if times > 1]


def indexes_agree(client: redis.Redis, messages: dict[str, StoredMessage], *, events_dropped: bool) -> None:
    """Every bitmap says of each message what its record says, and knows no others."""
    expected: dict[str, set[str]] = {}
    for message in messages.values():
        for mark in _marks(message):
            expected.setdefault(mark, set()).add(message.id)
    found: dict[str, set[str]] = {}
    segments: Any = client.zrange("worker:segments", 0, -1)
    names: Any = client.smembers("worker:names")
    for segment in (int(one) for one in segments):
        numbered: Any = client.lrange(f"worker:x:{segment}:ids", 0, -1)
        ids = [one.decode() for one in numbered]
        kept = sum(one in messages for one in ids)
        assert int(client.hget("worker:kept", str(segment)) or 0) == kept
        for mark in (one.decode() for one in names):
            bits: Any = client.get(f"worker:x:{segment}:{mark}") or b""
            for position in _positions(bits):
                assert position < len(ids), f"{mark} of {segment * SEGMENT + position}, which was never given out"
                found.setdefault(mark, set()).add(ids[position])
    if events_dropped:
        # The marks know more than the events that are left.
        expected = {mark: ids for mark, ids in expected.items() if not mark.startswith(("ended:", "error:"))}
        found = {mark: ids for mark, ids in found.items() if not mark.startswith(("ended:", "error:"))}
    for mark in expected.keys() | found.keys():
        wrong = expected.get(mark, set()) ^ found.get(mark, set())
        assert not wrong, f"{mark}: {len(wrong)} wrong, such as {messages.get(next(iter(wrong)))}"


def counters_agree(client: redis.Redis, messages: Iterable[StoredMessage]) -> None:
    """The counters of the hours add up to what the events say."""
    expected = Counter(
        (message.actor, event.state.value) for message in messages for event in message.events if event.state.is_final
    )
    found: Counter[tuple[str, str]] = Counter()
    for key in client.scan_iter("worker:h:*"):
        fields: Any = client.hgetall(key)
        for field, number in fields.items():
            actor, what = field.decode().split("\t")
            if what in {state.value for state in State} and actor != "?":
                found[actor, what] += int(number)
    assert found == expected


def _marks(message: StoredMessage) -> set[str]:
    marks = {f"actor:{message.actor}", f"queue:{message.queue}", f"state:{message.state}"}
    for event in message.events:
        if event.state in (State.FAILED, State.LOST, State.CANCELLED):
            marks.add(f"ended:{event.state.value}")
        if event.error is not None and event.error.type:
            marks.add(f"error:{event.error.type}")
    return marks


def _positions(bits: bytes) -> Iterable[int]:
    for index, byte in enumerate(bits):
        for bit in range(8):
            if byte & (128 >> bit):
                yield index * 8 + bit


def _ids(client: redis.Redis) -> list[str]:
    found = client.scan_iter("worker:m:*", count=1000)
    return [key.decode().removeprefix("worker:m:") for key in found]
