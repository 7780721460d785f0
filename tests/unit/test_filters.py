"""Filters as people write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from worker.cli.options import event_filter, message_filter
from worker.cli.output import local_time
from worker.errors import ConfigurationError
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter, read_message_filter, read_moment
from worker.history.overview import actor_rates, windows
from worker.history.query import count_of_messages, page_of_messages
from worker.history.states import MARKS

NASTY = [
    "",
    "\x00",
    "\x1f",
    "a\tb\nc",
    "\udce4",
    "\x1b[2J",
    "9" * 400 + "d",
    "1" * 5_000 + "x",
    " " * 5_000 + "x",
    "999999999d",
    "9999-12-31",
    "9999-12-31T23:59:59.999999-23:59",
    "0001-01-01",
    "0001-01-01T00:00+23:59",
    "1969-12-31T23:59:59.999",
    "2h",
    "a=b",
    "=",
    "=x",
    "\x1f=\x1f",
    "failed",
    "FAILED",
    "x" * 100_000,
]
TEXT = st.sampled_from(NASTY) | st.text(st.characters(codec=None, categories=None), max_size=40)
ONE = st.none() | TEXT
OPTIONS = {"actor": ONE, "queue": ONE, "error": ONE, "since": ONE, "until": ONE, "subject": st.lists(TEXT, max_size=3)}


T = TypeVar("T")


def test_a_time_that_is_too_long_for_rates_is_refused() -> None:
    """It is not silently shortened."""
    actor_rates(timedelta(days=366))
    for ask in (actor_rates, windows):
        with pytest.raises(ConfigurationError, match="400d is too long: at most 366d"):
            ask(timedelta(days=400))


def read_or_refused(read: Callable[[], T]) -> T | None:
    """What was read; `None` where it was refused, in one line."""
    try:
        return read()
    except ConfigurationError as error:
        said = str(error)
    assert said.splitlines() == [said]
    assert len(said) < 500
    return None


@settings(max_examples=examples(2_000))
@given(st.fixed_dictionaries({"state": st.lists(st.sampled_from(sorted(MARKS)) | TEXT, max_size=3), **OPTIONS}))
def test_a_filter_of_messages_is_read_or_refused_in_one_line(values: dict[str, Any]) -> None:
    """Whatever is typed; what is read can be told in words and asked of the server."""
    wanted = read_or_refused(lambda: message_filter(values))
    if wanted is not None:
        assert wanted.describe()
        assert page_of_messages(wanted).arguments[0] == 50
        assert count_of_messages(wanted).arguments[0] == 0


@settings(max_examples=examples(2_000))
@given(st.fixed_dictionaries({"state": st.none() | st.sampled_from(sorted(State)) | TEXT, **OPTIONS}))
def test_a_filter_of_events_is_read_or_refused_in_one_line(values: dict[str, Any]) -> None:
    """Whatever is typed."""
    assert isinstance(read_or_refused(lambda: event_filter(values)), EventFilter | None)


@settings(max_examples=examples(1_000), deadline=timedelta(seconds=10))
@given(TEXT)
@example("1" * 100_000 + "x")
@example("1 " * 50_000 + "x")
@example(" " * 100_000 + "x")
def test_a_time_is_read_or_refused_at_once(text: str) -> None:
    """Nobody can keep the program busy with one."""
    read_or_refused(lambda: read_moment("since", text))


@pytest.mark.parametrize("name", ["actor", "queue", "error", "since", "until"])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_value_on_the_command_line_is_refused(name: str, empty: str) -> None:
    """Of a variable that is not set in a script: without it everything would match."""
    with pytest.raises(ConfigurationError, match=f"--{name} is empty"):
        message_filter({name: empty})


def test_two_values_for_one_part_of_a_subject_are_refused() -> None:
    """The second would silently take the place of the first; the same twice is no harm."""
    assert read_message_filter({"subject": ["a=1", "a=1"]}).subject == {"a": "1"}
    with pytest.raises(ConfigurationError, match="'?a'? was given before, as '?1"):
        read_message_filter({"subject": ["a=1", "a=2"]})


def test_a_filter_reads_as_people_write_it() -> None:
    """States in any case, pairs of subjects, times as durations and dates."""
    before = datetime.now(UTC)
    found = message_filter({"state": ["Failed", "dead"], "subject": ["conversation_id=42", "a=b=c"], "since": "2h"})
    assert found.states == ("failed", "dead")
    assert found.subject == {"conversation_id": "42", "a": "b=c"}
    assert found.since is not None
    assert timedelta(0) <= found.since - (before - timedelta(hours=2)) < timedelta(seconds=5)
    assert message_filter({"until": "2026-11-21T09:00Z"}).until == datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert message_filter({}) == read_message_filter({}) == MessageFilter()


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A terminal whose clock is nine hours ahead."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_on_the_command_line_is_local_as_those_that_commands_print(in_tokyo: None) -> None:
    """So that a time that was read off a list can be asked for; over HTTP it is UTC, as in JSON."""
    nine = datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert local_time(nine) == "2026-11-21 18:00:00.000"
    for read in (message_filter, event_filter):
        assert read({"since": "2026-11-21 18:00:00.000"}).since == nine
        assert read({"since": ["2026-11-21 18:00:00.000"]}).since == nine  # as an option comes
        assert read({"since": "2026-11-21T10:00+01:00"}).since == nine
    assert read_message_filter({"since": "2026-11-21T09:00"}).since == nine


@pytest.mark.parametrize("text", ["1969-12-31T23:59:59.999", "0001-01-01", "0001-01-01T00:00+23:59"])
def test_a_time_before_all_computers_is_asked_for_as_such(text: str) -> None:
    """`--until` such a time matches nothing; it once was taken for none, and matched everything."""
    arguments = page_of_messages(message_filter({"until": text})).arguments
    assert arguments[3] == 0


def test_rates_of_ages_are_not_asked_of_the_server() -> None:
    """It would look at each hour of them, and answer nobody else meanwhile."""
    with pytest.raises(ConfigurationError, match="too long: at most 366d"):
        actor_rates(timedelta.max)
    [milliseconds, *_] = actor_rates(timedelta(days=366)).arguments
    assert milliseconds == timedelta(days=366).total_seconds() * 1_000


def test_refusing_a_long_text_that_is_no_duration_takes_no_time() -> None:
    """It grew twice with each digit."""
    began = time.process_time()
    with pytest.raises(ConfigurationError):
        read_moment("since", "1" * 1_000_000 + "x")
    assert time.process_time() - began < 10
