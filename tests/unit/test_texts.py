"""Text of others, made fit to be shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.output import json_line
from worker.ground.texts import SHOWN, shown, visible

# Those of a person's text that may stay, and every code that could steer a terminal.
ANYTHING = st.text(st.characters(codec=None, categories=None), max_size=300)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J", "\\x9b2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("over\rwritten\b", "over\\rwritten\\x08"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\udce4", "\\udce4"),
        ("a\tb\nc Größe \N{SNOWMAN} 日本", "a\tb\nc Größe \N{SNOWMAN} 日本"),
    ],
)
def test_what_would_steer_a_terminal_is_seen_and_not_obeyed(text: str, seen: str) -> None:
    """As an escape; letters of all scripts, tabs and newlines stay."""
    assert visible(text) == seen


@given(ANYTHING)
def test_a_value_in_a_complaint_stays_on_its_line_and_is_not_long(text: str) -> None:
    """Whatever was typed, it can be printed."""
    line = shown(text)
    assert line.splitlines() in ([], [line])
    assert len(line) <= SHOWN + 1
    line.encode()


@given(st.recursive(ANYTHING, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING, inner, max_size=3)))
def test_json_can_be_printed_anywhere_and_says_the_same(value: object) -> None:
    """One line, without control characters, from which the value is read back."""
    line = json_line(value)
    assert json.loads(line) == value
    assert line.splitlines() == [line]
    assert visible(line) == line
    line.encode()
