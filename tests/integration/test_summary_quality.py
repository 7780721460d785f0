"""How good the embedded summarizer's summaries of eight real meetings are, and how fast they come."""

import json
import re
from collections import Counter
from itertools import accumulate
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import pytest

from worker.models.extractive import ExtractiveSummarizer

MEETINGS = Path(__file__).parents[3] / "shared" / "data" / "meetings"
FILES = sorted(MEETINGS.glob("*.json"))

pytestmark = pytest.mark.quality


@pytest.fixture(autouse=True)
def meetings() -> None:
    """They may not be copied into the repository, so these tests have a make target of their own."""
    assert len(FILES) == 8, f"eight meetings belong in {MEETINGS}"


def transcript(file: Path) -> str:
    """What was said, a turn a line."""
    return "\n".join(turn["text"] for turn in json.loads(file.read_text(encoding="utf-8"))["turns"])


def unigram_f1(summary: str, reference: str) -> float:
    """ROUGE-1 F without stemming: the harmonic mean of precision and recall of single words."""
    ours, theirs = (Counter(re.findall(r"[a-z0-9]+", text.lower())) for text in (summary, reference))
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())


def test_summaries_of_150_words_reach_a_unigram_f_of_0_28_against_a_persons() -> None:
    """The mean unigram F of eight meetings is 0.28 or more, and no summary exceeds 150 words."""
    scores = []
    for file in FILES:
        summary = ExtractiveSummarizer().summarize(transcript(file), max_words=150)
        assert len(summary.split()) <= 150
        scores.append(unigram_f1(summary, json.loads(file.read_text(encoding="utf-8"))["summary"]))
    assert mean(scores) >= 0.28


def test_15000_words_are_summed_up_within_half_a_second() -> None:
    """The median of three, with the model in memory."""
    turns = [turn for file in FILES for turn in transcript(file).split("\n")]
    words = accumulate(len(turn.split()) for turn in turns)
    text = "\n".join(turn for turn, so_far in zip(turns, words, strict=True) if so_far <= 15_000)
    assert len(text.split()) > 14_500
    ExtractiveSummarizer().summarize(text)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        ExtractiveSummarizer().summarize(text)
        seconds.append(perf_counter() - start)
    assert median(seconds) < 0.5
