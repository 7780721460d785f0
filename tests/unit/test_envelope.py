"""How messages travel."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.broker.envelope import decode, encode, priority_name
from worker.errors import MessageRefused

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=8,
)
MESSAGES: st.SearchStrategy[dramatiq.Message[Any]] = st.builds(
    dramatiq.Message,
    queue_name=NAMES,
    actor_name=NAMES,
    args=st.lists(VALUES, max_size=3).map(tuple),
    kwargs=st.dictionaries(PLAIN, VALUES, max_size=3),
    options=st.dictionaries(PLAIN.filter(lambda name: name != "unique"), VALUES, max_size=3),
    message_id=NAMES,
    message_timestamp=st.integers(0, 2**53),
)
LIMIT = 1_000_000


def message(**values: Any) -> dramatiq.Message[Any]:
    found: dict[str, Any] = {"queue_name": "q", "actor_name": "a", "args": (), "kwargs": {}, "options": {}}
    return dramatiq.Message(**found | values)


@given(MESSAGES)
def test_a_message_survives_the_way_there_and_back(sent: dramatiq.Message[Any]) -> None:
    """In one line, without what separates the fields of a record."""
    line = encode(sent, LIMIT)
    assert b"\n" not in line
    assert b"\x1f" not in line
    assert decode(line) == sent


def test_a_message_that_was_read_is_one_of_dramatiqs_in_all_respects() -> None:
    """Its fields cannot be set, its arguments are a tuple, and what was left out has Dramatiq's values."""
    sent = message(args=(1, [2]), kwargs={"a": 1}, options={"retries": 1})
    read = decode(encode(sent, LIMIT))
    assert vars(read) == vars(sent)
    assert read.copy(args=()).message_id == sent.message_id
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.args = ()  # type: ignore[misc]
    fields = sent.asdict()
    del fields["message_timestamp"]
    assert decode(json.dumps(fields).encode()).message_timestamp >= sent.message_timestamp


def test_a_message_is_smaller_than_in_the_usual_encoding() -> None:
    """No spaces, and characters as they are."""
    sent = message(args=("Grüße", [1, 2]))
    assert b'"args":["Gr\xc3\xbc\xc3\x9fe",[1,2]]' in encode(sent, LIMIT)


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, float("nan"), float("inf"), "\ud800"], ids=lambda value: repr(value)[:12]
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    """The error names the actor, and is the one that Dramatiq's callers expect."""
    with pytest.raises(MessageRefused, match="a message for a holds what JSON cannot") as caught:
        encode(message(args=(value,)), LIMIT)
    assert isinstance(caught.value, TypeError)


def test_what_holds_itself_is_refused() -> None:
    """So is what is nested without end."""
    endless: list[object] = []
    endless.append(endless)
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(MessageRefused):
            encode(message(args=(value,)), LIMIT)


def test_the_limit_is_on_the_bytes_that_travel() -> None:
    """A message of exactly that size passes; one byte more, and the error says what to do."""
    sent = message(args=("ü" * 500,))
    size = len(encode(sent, LIMIT))
    assert encode(sent, size)
    with pytest.raises(
        MessageRefused, match=rf"has {size} bytes, more than WORKER_MAX_MESSAGE_BYTES={size - 1}: store"
    ):
        encode(sent, size - 1)


@pytest.mark.parametrize("bad", ["a\nb", "a\tb", "a\x1fb", "a\x00b", 5, None])
@pytest.mark.parametrize("field", ["queue_name", "actor_name", "message_id"])
def test_names_that_would_break_a_record_are_refused_and_never_read(field: str, bad: object) -> None:
    """Fields of records and notes are separated by control characters."""
    broken = message(**{field: bad})
    with pytest.raises(MessageRefused):
        encode(broken, LIMIT)
    with pytest.raises(ValueError, match=f"whose {field} (holds|is no text)"):
        decode(json.dumps(broken.asdict()).encode())


def test_names_may_hold_every_character_but_those_that_separate_and_halves() -> None:
    """Also such as cannot be printed: a space that does not break, a mark of direction."""
    separators, halves = [*range(0x20), 0x7F], range(0xD800, 0xE000)
    for number in (*separators, *halves):
        with pytest.raises(MessageRefused):
            encode(message(queue_name=f"a{chr(number)}b"), LIMIT)
    for character in "\x80\xa0\u200b\u200e\u2028\ue000\U0010ffff":
        assert encode(message(queue_name=f"a{character}b"), LIMIT)


def test_a_unique_key_is_plain_text_too() -> None:
    """It becomes part of a key."""
    with pytest.raises(MessageRefused):
        encode(message(options={"unique": "a\x1fb"}), LIMIT)
    assert encode(message(options={"unique": None}), LIMIT)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'"text"',
        b"[" * 100_000,
        b'{"queue_name":"q"}',
        b'{"queue_name":"q","actor_name":"a","args":5,"kwargs":{},"options":{}}',
        b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":[],"options":{}}',
        b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":{},"options":null}',
        b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":{},"options":{},"invented":1}',
        b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":{},"options":{}} {}',
        b'{"queue_name":"q\\ud800","actor_name":"a","args":[],"kwargs":{},"options":{}}',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_what_is_no_message_is_a_value_error(line: bytes) -> None:
    """Whoever reads it makes a dead letter of it, and of nothing else."""
    with pytest.raises(ValueError, match=r"."):
        decode(line)


PRIVATE = [
    b"4111-1111",
    b"\xff 4111-1111",
    b'"4111-1111"',
    b'["4111-1111"]',
    b'{"4111-1111":1}',
    b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":["4111-1111"],"options":{}}',
    b'{"queue_name":"q","actor_name":"a\\u0000","args":["4111-1111"],"kwargs":{},"options":{}}',
    b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":{},"options":{"unique":"4111-1111\\n"}}',
    b'{"queue_name":"q","actor_name":"a","args":[],"kwargs":{},"options":{"unique":["4111-1111"]}}',
]


@pytest.mark.parametrize("line", PRIVATE, ids=lambda line: repr(line[-40:]))
def test_an_error_says_how_much_was_no_message_and_nothing_of_what_it_holds(line: bytes) -> None:
    """Errors are shown to people who may not see arguments."""
    with pytest.raises(ValueError, match=rf"not a message: {len(line)} bytes ") as caught:
        decode(line)
    assert "4111" not in str(caught.value)


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_a_message_or_a_value_error(line: bytes) -> None:
    """Nothing that somebody puts into a stream ends the reader."""
    with contextlib.suppress(ValueError):
        decode(line)


@given(st.recursive(st.none() | st.integers() | PLAIN, lambda inner: st.lists(inner) | st.dictionaries(PLAIN, inner)))
def test_whatever_the_fields_hold_it_is_a_message_or_a_value_error(value: object) -> None:
    """Also where the fields have the right names."""
    fields = dict.fromkeys(("queue_name", "actor_name", "args", "kwargs", "options"), value)
    with contextlib.suppress(ValueError):
        decode(json.dumps(fields).encode())


def test_the_names_of_priorities_follow_dramatiqs_numbers() -> None:
    """Less is more urgent, and 0 is what everybody has."""
    assert [priority_name(priority) for priority in (-100, -1, 0, 1, 100)] == ["high", "high", "normal", "low", "low"]
