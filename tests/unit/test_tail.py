"""Positions in the live tail, and what is read from there, without a server."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from worker.history import tail
from worker.history.events import State, StatusEvent
from worker.history.filters import EventFilter
from worker.history.lines import to_line
from worker.history.tail import Followed, _Place, read_entry

Entry = tuple[bytes, dict[bytes, bytes]]


def line(number: int, actor: str = "a") -> str:
    event = StatusEvent(
        event=f"{actor}.started",
        state=State.STARTED,
        id=f"m{number}:1",
        actor=actor,
        message_id=f"m{number}",
        attempt=1,
    )
    return f"m{number}\t{actor}\tq\n{to_line(event)}"


class Stream:
    """A stream as the server has it: entries of some events each, the oldest of which may be gone."""

    def __init__(self, sizes: list[int]) -> None:
        numbers = itertools.count()
        self.entries: list[Entry] = []
        for place, size in enumerate(sizes, 1):
            text = "".join(line(next(numbers)) for _ in range(size))
            self.entries.append((f"{1_000 + place // 3}-{place % 3}".encode(), {b"e": text.encode()}))
        self.added = len(self.entries)

    def trim(self, kept: int) -> None:
        self.entries = self.entries[len(self.entries) - kept :]

    def answers(self, place: _Place, most: int = 200) -> list[Any]:
        """What the server says to who asks about the stream, and for what follows a place."""
        after = _id(place.before.encode())
        found = [one for one in self.entries if _id(one[0]) > after][:most]
        oldest = self.entries[0] if self.entries else None
        about = {"entries-added": self.added, "length": len(self.entries), "first-entry": oldest}
        return [about, [[b"{worker}:events", found]] if found else []]

    def read(self, after: str, most: int = 200) -> list[Followed]:
        place = _Place(after)
        place.look(self.answers(place, most))
        return list(place.read(EventFilter()))


def _id(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.decode().partition("-")
    return int(milliseconds), int(number)


def ids(found: list[Followed]) -> list[str]:
    return [one.event.id for one in found if one.event is not None]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_after_each_position_comes_the_rest(sizes: list[int]) -> None:
    """Wherever in an entry it is, also in the first of a millisecond."""
    stream = Stream(sizes)
    everything = stream.read("0-0")
    assert len(ids(everything)) == sum(sizes)
    for place, one in enumerate(everything, 1):
        rest = stream.read(one.position)
        assert ids(rest) == ids(everything[place:])
        assert not any(other.missed for other in rest)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=10), st.data())
def test_what_went_between_a_place_and_the_oldest_is_missed(sizes: list[int], data: st.DataObject) -> None:
    """Never less is told than is true: only one whose own place is gone may be told although it has missed nothing."""
    stream = Stream(sizes)
    everything = stream.read("0-0")
    one = data.draw(st.sampled_from(everything))
    kept = data.draw(st.integers(1, len(sizes)))
    stream.trim(kept)
    rest = stream.read(one.position)
    expected = ids(everything[everything.index(one) + 1 :])
    if ids(rest) != expected:
        assert rest[0].missed
    entry = one.position.partition("/")[0].encode()
    if _id(entry) >= _id(stream.entries[0][0]):
        assert ids(rest) == expected
        assert not any(other.missed for other in rest)


def test_who_was_at_the_end_knows_by_counting_whether_something_is_gone() -> None:
    """Though its place is gone, nothing is missed; or something is, though little was added."""
    stream = Stream([1] * 10)
    later = stream.entries[6:]
    for gone, missed in ((6, False), (7, True)):
        stream.entries, stream.added = stream.entries[:6] if gone == 6 else Stream([1] * 6).entries, 6
        place = _Place("0-0")
        assert place.look(stream.answers(place))
        assert len(list(place.read(EventFilter()))) == 6
        assert not place.look(stream.answers(place))
        stream.entries, stream.added = later[gone - 6 :], 10
        assert place.look(stream.answers(place))
        assert [one.missed for one in place.read(EventFilter())] == [missed, *[False] * (9 - gone)]


def test_who_reads_page_by_page_counts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is at the end, and after something was missed."""
    monkeypatch.setattr(tail, "_PAGE", 3)
    stream = Stream([1] * 10)
    place = _Place("0-0")
    place.look(stream.answers(place, 3))
    list(place.read(EventFilter()))
    stream.trim(5)
    place.look(stream.answers(place, 3))
    assert [one.missed for one in place.read(EventFilter())] == [True, False, False]
    stream.trim(2)
    place.look(stream.answers(place, 3))
    assert [one.missed for one in place.read(EventFilter())] == [False, False]


def test_what_the_server_refuses_is_raised_and_no_stream_is_an_empty_one() -> None:
    """Nothing is made up."""
    place = _Place("0-0")
    with pytest.raises(RuntimeError):
        place.look([{}, RuntimeError("no")])
    assert not place.look([RuntimeError("no such key"), []])
    assert place.nothing() == Followed("0-0", None, missed=False)


def test_a_position_without_its_second_half_is_the_beginning_of_a_millisecond() -> None:
    """As Redis has it."""
    assert _Place("12").before == "12-0"
    assert _Place("12-3/1").before == "12-2"
    assert _Place("12-0/1").before == f"11-{2**64 - 1}"


def test_what_cannot_be_read_in_an_entry_is_passed_over() -> None:
    """What stands around it is not."""
    text = f"{line(1)}not\tfields\n{{}}\n\xff\n{line(2)}".encode("latin-1")
    assert [event.message_id for event in read_entry(text)] == ["m1", "m2"]
