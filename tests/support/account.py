"""The account at the end of a test: what was sent has ended, once, and nothing is left behind.

It reads keys as `docs/reference/redis.md` describes them: it is the history that is checked here, not its queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from tests.support.indexes import FINAL, indexes_agree
from tests.support.scene import Run, Scene
from worker.history.answers import StoredMessage
from worker.history.events import State, StatusEvent
from worker.history.states import FAILURES, WAITS
from worker.server.client import RedisClient

NOBODY: frozenset[str] = frozenset()


def settle(
    scene: Scene,
    sent: Collection[str],
    *,
    delayed: Collection[str] = NOBODY,
    unread: Collection[str] = NOBODY,
    events_dropped: bool = False,
) -> Counter[str]:
    """Checks everything as `settled` does; answers how many messages are in each state."""
    messages = settled(scene, sent, delayed=delayed, unread=unread, events_dropped=events_dropped)
    return Counter(message.state for message in messages.values())


def settled(
    scene: Scene,
    sent: Collection[str],
    *,
    delayed: Collection[str] = NOBODY,
    unread: Collection[str] = NOBODY,
    events_dropped: bool = False,
) -> dict[str, StoredMessage]:
    """Checks everything; answers the messages.

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
    messages = indexes_agree(client, events_dropped=events_dropped)
    assert messages.keys() == set(sent), (
        f"{len(messages.keys() - set(sent))} too many, {len(set(sent) - messages.keys())} missing"
    )
    for message in messages.values():
        assert (message.state == "delayed") == (message.id in delayed), message
        assert message.state in (*FINAL, "delayed"), message
        if message.id not in unread and not events_dropped:
            events_are_in_order(message, sent_again=message.id in scene.sent_again)
    each_was_run(messages, scene.ledger())
    if not events_dropped:
        counters_agree(client, [message for message in messages.values() if message.id not in unread])
    states = Counter(message.state for message in messages.values())
    assert states == scene.states(), f"{dict(states)} are stored, counted are {dict(scene.states())}"
    return messages


def nothing_is_left(client: RedisClient, delayed: Collection[str]) -> None:
    """Streams are empty, nothing is pending, nothing is delayed, no unique key is held."""
    for stream in client.scan_iter("{worker}:q:*", _type="stream"):
        assert client.xlen(stream) == 0, f"{stream!r} holds {client.xrange(stream)}"
        for group in client.xinfo_groups(stream):
            assert group["pending"] == 0, f"{stream!r}: {client.xinfo_consumers(stream, 'workers')}"
    due: Any = client.zrange("{worker}:due", 0, -1)
    assert {one.decode() for one in due} == set(delayed)
    assert not list(client.scan_iter("{worker}:u:*"))


def events_are_in_order(message: StoredMessage, *, sent_again: bool) -> None:
    """Each attempt has one set of events, from STARTED to one that ends it, and the last says what became of it."""
    # Whose sender got no answer, it may have ended before it was sent again; then it ran again.
    earlier_ends = set(State) if sent_again else {*FAILURES, *WAITS, State.CANCELLED}
    # What people asked for is not told by an attempt, and may stand between its start and its end.
    told_by_attempts = [event for event in message.events if event.state not in (State.REQUESTED, State.WAITING)]
    attempts = [
        (number, [event.state for event in events if event.state is not State.PROGRESS])
        for number, events in groupby(told_by_attempts, key=lambda event: event.attempt)
    ]
    told = f"{message.state} after {message.attempts}: {attempts}"
    if message.state == "delayed":
        assert not attempts, told
        return
    assert [number for number, _ in attempts] == list(range(1, len(attempts) + 1)), told
    assert message.attempts == len(attempts) - _never_ran(message.events), told
    if message.state == "cancelled" and (not attempts or attempts[-1][1] == [State.STARTED]):
        # It had not begun, or nobody knew: the server ended it, and what its attempt did is void.
        assert all(_is_whole(states, earlier_ends) for _, states in attempts[:-1]), told
        return
    *earlier, (_, last) = attempts
    for _, states in earlier:
        assert _is_whole(states, earlier_ends), told
    # One that may run only once is a dead letter too when the end of its worker cancels it.
    broken = {*FAILURES, State.CANCELLED}
    expected = {"dead": broken, "cancelled": {*broken, *WAITS}}.get(message.state) or {State(message.state)}
    assert _is_whole(last, expected) or _never_ran(message.events), told


def _is_whole(states: Sequence[State], ends: set[State]) -> bool:
    # A process that dies as it begins an attempt may have told that it does, but not more.
    return states[-1] in ends and (
        list(states[:-1]) == [State.STARTED] or list(states) in ([State.LOST], [State.CANCELLED])
    )


def _never_ran(events: Iterable[StatusEvent]) -> bool:
    # Its actor is unknown: it is told so, and nothing has started.
    return [event.error.type for event in events if event.error] == ["worker.errors.UnknownActor"]


def each_was_run(messages: dict[str, StoredMessage], ledger: list[Run]) -> None:
    """Each completed message has been done at least once, and no delivery has been begun twice."""
    done = {run.message_id for run in ledger if run.what == "done"}
    completed = {message.id for message in messages.values() if message.state == "completed"}
    assert completed <= done, f"{len(completed - done)} completed without having been run"
    begun = Counter((run.message_id, run.fence) for run in ledger if run.what == "began")
    assert not [one for one, times in begun.items() if times > 1]


WINDOWS = {
    "{worker}:w": True,
    "{worker}:h": True,
    "{worker}:wt": False,
    "{worker}:ht": False,
    "{worker}:w10": True,
    "{worker}:d": True,
}
"""The counters of windows, and whether they are told apart by actors."""


def counters_agree(client: RedisClient, messages: Iterable[StoredMessage]) -> None:
    """The counters of windows of every length add up to what the events say."""
    of_actors = Counter(
        (message.actor, event.state.value) for message in messages for event in message.events if event.state.is_final
    )
    of_all: Counter[tuple[str, str]] = Counter()
    for (_, state), number in of_actors.items():
        of_all["", state] += number
    for prefix, is_by_actor in WINDOWS.items():
        found: Counter[tuple[str, str]] = Counter()
        for key in client.scan_iter(f"{prefix}:*", _type="hash"):
            fields: Any = client.hgetall(key)
            for field, number in fields.items():
                actor, _, what = field.decode().rpartition("\t")
                if what in {state.value for state in State}:
                    found[actor, what] += int(number)
        assert found == (of_actors if is_by_actor else of_all), prefix
