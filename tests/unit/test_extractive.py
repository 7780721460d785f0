"""The embedded summarizer's promises, on texts small enough to read."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.models.extractive import MAX_SENTENCE_WORDS, ExtractiveSummarizer, split_sentences
from worker.models.spoken_english import is_english, tidied

# ruff: noqa: RUF001 - the punctuation of other scripts is meant

SUMMARIZER = ExtractiveSummarizer()

NOTES = """\
Okay. Um, yeah.
We met to choose the battery of the new remote control, and to agree on its price for the European market.
Dr. Lopez measured that the rechargeable battery lasts three weeks, e.g. in a house with two television sets.
Nice weather today, by the way, is it not?
The marketing team wants to sell the remote control for twenty five Euro, which leaves little for the battery.
Uh, uh, uh, so, um, I, I, I, er, do not, um, do not know.
In the end we decided to buy the cheaper battery and to keep the price of the remote control at twenty five Euro.
Someone has to tell the suppliers before the contract for the old battery is renewed on the first of May.
See you next week.
"""


def test_a_summary_is_sentences_of_the_text_verbatim_in_their_order() -> None:
    """What is cited was said like that, and in that order."""
    sentences = split_sentences(NOTES)
    lines = SUMMARIZER.summarize(NOTES, max_words=50).split("\n")
    assert len(lines) > 1
    assert lines == [sentence for sentence in sentences if sentence in lines]


def test_a_summary_says_what_the_text_is_about_and_leaves_out_stutter() -> None:
    """The topic beats fillers, greetings and asides."""
    summary = SUMMARIZER.summarize(NOTES, max_words=50)
    assert "battery" in summary
    assert "Uh, uh" not in summary
    assert "weather" not in summary


@pytest.mark.parametrize("max_words", [1, 3, 8, 25, 50, 1000])
def test_a_summary_has_no_more_words_than_asked_for(max_words: int) -> None:
    """The limit holds for any number of words."""
    assert 1 <= len(SUMMARIZER.summarize(NOTES, max_words=max_words).split()) <= max_words


def test_a_summary_is_less_than_half_of_a_text_of_several_sentences() -> None:
    """However many words are allowed, a summary is shorter than the text."""
    assert len(SUMMARIZER.summarize(NOTES, max_words=1000).split()) < len(NOTES.split()) / 2


def test_one_sentence_is_its_own_summary() -> None:
    """There is at least one sentence in a summary."""
    assert SUMMARIZER.summarize("The  battery\tis empty.") == "The battery is empty."


def test_of_two_sentences_one_is_the_summary() -> None:
    """A sentence may take more than its share of the text if there are but two."""
    text = "The battery of the remote control is empty. The remote control has no battery that can be charged."
    assert SUMMARIZER.summarize(text) in split_sentences(text)


@pytest.mark.parametrize("text", ["", "   \n\t ", "{gap} {vocalsound}\n{disfmarker}"])
def test_the_summary_of_nothing_is_empty(text: str) -> None:
    """Nothing said, nothing summed up."""
    assert SUMMARIZER.summarize(text) == ""


def test_a_sentence_that_does_not_fit_makes_room_for_one_that_does() -> None:
    """The best sentence is left out whole, rather than cut, while another fits."""
    long = "The price of the remote control depends on the price of the battery and on the size of the market."
    assert SUMMARIZER.summarize(f"{long} The battery is cheap.", max_words=6) == "The battery is cheap."


def test_if_no_sentence_fits_the_best_is_cut_visibly() -> None:
    """A cut sentence ends with an ellipsis."""
    assert SUMMARIZER.summarize("The battery of the remote control is empty.", max_words=3) == "The battery of…"


def test_a_limit_below_one_word_is_refused() -> None:
    """A mistake of the caller is named."""
    with pytest.raises(ValueError, match="max_words is 0"):
        SUMMARIZER.summarize(NOTES, max_words=0)


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. Manly thanked Dr. Who and Prof. J. R. Tolkien.",
        "We visit places, e.g. Paris, i.e. the capital.",
        "The U.S. team sells pens, paper etc. and meets at 9 a.m. every day.",
        "It costs 3.50 Euro at example.com today.",
    ],
)
def test_an_abbreviation_does_not_end_a_sentence(sentence: str) -> None:
    """A full stop after a title, an initial or the like is no end."""
    assert split_sentences(f"{sentence} Then we left.") == [sentence, "Then we left."]


def test_sentences_end_at_marks_of_other_scripts_and_behind_quotes() -> None:
    """A question mark, a closing quote or a Chinese full stop ends a sentence as well."""
    assert split_sentences("He said: “Why?” Nobody knew.") == ["He said: “Why?”", "Nobody knew."]
    assert split_sentences("你好。再见！") == ["你好。", "再见！"]


def test_every_line_is_a_sentence_even_without_punctuation() -> None:
    """A transcript has one turn a line and often no punctuation."""
    assert split_sentences("so what do we do\r\nwe buy it\n\nokay") == ["so what do we do", "we buy it", "okay"]


def test_a_long_run_without_punctuation_is_cut_at_a_bounded_length() -> None:
    """No word is lost where a long run is cut."""
    words = [f"word{i}" for i in range(10 * MAX_SENTENCE_WORDS + 7)]
    sentences = split_sentences(" ".join(words))
    assert max(len(sentence.split()) for sentence in sentences) == MAX_SENTENCE_WORDS
    assert " ".join(sentences).split() == words
    assert 0 < len(SUMMARIZER.summarize(" ".join(words), max_words=150).split()) <= 150


def test_a_long_sentence_is_cut_behind_a_comma_if_there_is_one() -> None:
    """A part of a sentence reads as a clause."""
    [first, _] = split_sentences("word " * 45 + "clause, " + "word " * 40)
    assert first.endswith("clause,")


def test_transcribers_marks_are_removed() -> None:
    """Marks such as {vocalsound} are not words of the speakers."""
    text = "We {vocalsound} sell the{disfmarker}  remote control {gap} ."
    assert split_sentences(text) == ["We sell the remote control ."]
    assert SUMMARIZER.summarize(text) == "We sell the remote control."


def test_the_same_text_gives_the_same_summary_in_any_of_many_threads() -> None:
    """64 threads, and other texts between, change nothing."""
    texts = [NOTES, NOTES.replace("battery", "screen"), NOTES.upper()] * 64
    expected = [SUMMARIZER.summarize(text) for text in texts[:3]] * 64
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(ExtractiveSummarizer().summarize, texts)) == expected


FIRST_USE = """
import logging, sys
from concurrent.futures import ThreadPoolExecutor
from worker.models.embedded import wordllama
from worker.models.extractive import ExtractiveSummarizer
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING), "logging was configured"
load, loads = wordllama.WordLlama.load, []
wordllama.WordLlama.load = lambda **arguments: loads.append(1) or load(**arguments)
with ThreadPoolExecutor(64) as pool:
    summaries = set(pool.map(ExtractiveSummarizer().summarize, [sys.argv[1]] * 64))
assert (root.handlers, root.level) == ([], logging.WARNING), "logging was configured"
print(len(loads), len(summaries))
"""


def test_the_model_is_loaded_once_by_64_threads_and_leaves_logging_alone() -> None:
    """In a new process, a first use from 64 threads at once loads one model and configures no logging."""
    program = [sys.executable, "-c", FIRST_USE, NOTES]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("1 1\n", "", 0)


def test_importing_it_leaves_the_root_logger_without_the_guard() -> None:
    """The handler that keeps wordllama from configuring logging is gone after the import."""
    assert not any(type(handler) is logging.NullHandler for handler in logging.getLogger().handlers)


PIECES = st.sampled_from(
    [
        "The battery is empty. ",
        "Mr. ",
        "um ",
        "the the ",
        "\n",
        "{gap}",
        "{the}",
        "{",
        "\0",
        "🙂",
        "。",
        "...",
        " " * 500,
        "word " * 70,
        "\x85",
    ]
)


@given(
    text=st.one_of(
        st.text(alphabet=st.characters(codec="utf-8")),
        st.lists(st.one_of(PIECES, st.text(max_size=12))).map("".join),
    ),
    max_words=st.integers(min_value=1, max_value=200),
)
def test_any_text_is_summed_up_by_its_own_sentences_within_the_limit(text: str, max_words: int) -> None:
    """Whatever the text: no error, no foreign sentence, no sentence out of order, never too many words."""
    sentences, summary = split_sentences(text), SUMMARIZER.summarize(text, max_words=max_words)
    if is_english(" ".join(sentences)):
        sentences = [sentence for sentence in map(tidied, sentences) if sentence]
    assert len(summary.split()) <= max_words
    assert bool(summary) == bool(sentences)
    following = iter(sentences)
    fits = any(len(sentence.split()) <= max_words for sentence in sentences)
    for line in summary.split("\n") if summary else []:
        assert any(line == s or (not fits and s.startswith(line.removesuffix("…"))) for s in following)


@given(st.text(st.sampled_from("ab. !?\n{}\"'…。，,"), max_size=300))
def test_no_word_is_lost_by_splitting(text: str) -> None:
    """The sentences together are the text, up to whitespace and marks; each is a sentence of its own."""
    sentences = split_sentences(text)
    assert all(split_sentences(sentence) == [sentence] for sentence in sentences)
    if "{" not in text:
        assert "".join("".join(sentences).split()) == "".join(text.split())
