"""Cleaning and splitting transcripts, for any text."""

from __future__ import annotations

import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from worker.conversations.summarizing import split
from worker.stores.transcripts import clean

# Any code point, those that no file can hold included.
TEXTS = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from(" \n\t\0.!?…"))
LIMITS = st.integers(1, 12)


@given(text=TEXTS, limit=LIMITS)
@example(text="One. Two three. Four five six seven.", limit=3)
def test_parts_hold_every_word_once_and_in_order(text: str, limit: int) -> None:
    """Nothing is lost, doubled or swapped, whatever the text and the limit."""
    # A word that is far too long for one (a script without spaces) may be cut, and nothing else is.
    assert "".join("".join(split(text, limit)).split()) == "".join(text.split())
    if all(len(word) <= 40 for word in text.split()):
        assert " ".join(split(text, limit)).split() == text.split()


@given(text=TEXTS, limit=LIMITS)
def test_no_part_is_empty_or_over_the_limit(text: str, limit: int) -> None:
    """Not even where a single sentence is longer."""
    assert all(1 <= len(part.split()) <= limit for part in split(text, limit))


@given(text=TEXTS, limit=LIMITS)
def test_two_neighbouring_parts_would_not_fit_into_one(text: str, limit: int) -> None:
    """No more parts than about twice as many as are needed: each is a request."""
    # A word that is far too long for one counts as several, as many as it is cut into.
    assume(all(len(word) <= 40 for word in text.split()))
    sizes = [len(part.split()) for part in split(text, limit)]
    assert all(one + other > limit for one, other in pairwise(sizes))


def test_parts_end_where_sentences_end() -> None:
    """As long as a sentence is within the limit."""
    assert split("One two. Three four! Five six? Seven\neight", 4) == [
        "One two.\nThree four!",
        "Five six?\nSeven\neight",
    ]


@given(transcripts=st.lists(TEXTS, max_size=4))
def test_cleaning_what_is_clean_changes_nothing(transcripts: list[str]) -> None:
    """It is idempotent, so that a digest of cleaned text is stable."""
    once = clean(transcripts)
    assert clean([once]) == once


@given(transcripts=st.lists(TEXTS, max_size=4))
def test_what_is_clean_has_no_control_characters_and_can_be_written(transcripts: list[str]) -> None:
    """Neither NULs nor halves of surrogate pairs, and single spaces between words."""
    text = clean(transcripts)
    assert text.encode("utf-8").decode("utf-8") == text
    assert not [char for char in text.replace("\n", "") if unicodedata.category(char) == "Cc"]
    assert text == "\n".join(" ".join(line.split()) for line in text.split("\n"))
    assert "\n\n" not in text


@given(transcripts=st.lists(st.text("abcé .,\n\t"), max_size=4))
def test_cleaning_keeps_every_word_in_order(transcripts: list[str]) -> None:
    """Across the transcripts, and every line break inside one."""
    text = clean(transcripts)
    assert text.split() == " ".join(transcripts).split()
    inside = [len([line for line in transcript.splitlines() if line.strip()]) for transcript in transcripts]
    assert len(text.splitlines()) >= sum(lines - 1 for lines in inside if lines) + any(inside)


def test_a_sentence_goes_on_in_the_next_transcript() -> None:
    """A new line begins only where a sentence ended."""
    transcripts = ["He said", "  hello.\r\n", "", 'Then "why?"', "he left,\nunseen", "。"]
    assert clean(transcripts) == 'He said hello.\nThen "why?"\nhe left,\nunseen 。'


@pytest.mark.parametrize(
    "transcripts",
    [["word and " * 10] * 6_000, ["." * 8_000 + "a"] * 5, ["Said. " * 20_000, "a"] * 5],
    ids=["many", "dots", "long"],
)
def test_cleaning_takes_time_in_proportion_to_the_text(transcripts: list[str]) -> None:
    """It runs on the event loop: long conversations and odd transcripts must not stop it."""
    started = time.process_time()
    clean(transcripts)
    assert time.process_time() - started < 10
