"""Compares the constants of the embedded summarizer on the meetings for tuning, and cross-validates the choice.

Run it with `python bench/summaries_tuning.py`; it needs what `bench/summaries.py` needs.

One series of meetings is left out at a time, because the meetings of one group share their subject and their words. Its
score is that of the constants that were best on all other series.
"""

import argparse
import re
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from rouge_score.rouge_scorer import RougeScorer
from summaries import MAX_WORDS, MEETINGS, meetings

from worker.models import extractive

LENGTH_POWERS = (0.25, 0.5, 0.75)
REGISTERS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
SERIES = re.compile(r"[A-Z]{2}\d+|[A-Za-z]+")


def scores(pairs: list[tuple[str, str]], length_power: float, register: float) -> list[float]:
    """The ROUGE-1 F of every meeting, with these constants."""
    extractive._LENGTH_POWER, extractive._REGISTER = length_power, register  # noqa: SLF001 - to choose them
    summarize, scorer = extractive.ExtractiveSummarizer().summarize, RougeScorer(["rouge1"], use_stemmer=True)
    return [
        scorer.score(reference, summarize(text, max_words=MAX_WORDS))["rouge1"].fmeasure for text, reference in pairs
    ]


def left_out(grid: dict[tuple[float, float], list[float]], series: list[str]) -> list[float]:
    """The score of every meeting, with the constants that were best on the other series."""
    found = []
    for place, own in enumerate(series):
        others = [i for i, other in enumerate(series) if other != own]
        best = max(grid, key=lambda constants: mean(grid[constants][i] for i in others))
        found.append(grid[best][place])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose the embedded summarizer's constants.")
    parser.add_argument("--meetings", type=Path, default=MEETINGS.with_name("meetings-train"), metavar="DIR")
    folder = parser.parse_args().meetings
    pairs = meetings(folder)
    if not pairs:
        parser.error(f"no meetings (*.json) in {folder}: pass --meetings DIR")
    matches = [SERIES.match(file.stem) for file in sorted(folder.glob("*.json"))]
    series = [match[0] if match else "" for match in matches]
    grid = {constants: scores(pairs, *constants) for constants in product(LENGTH_POWERS, REGISTERS)}
    print(f"{len(pairs)} meetings of {len(set(series))} series, ROUGE-1 F with stemming, by _REGISTER\n")
    print(f"{'_LENGTH_POWER':14}" + "".join(f"{register:>8}" for register in REGISTERS))
    for length_power in LENGTH_POWERS:
        row = (mean(grid[length_power, register]) for register in REGISTERS)
        print(f"{length_power:<14}" + "".join(f"{score:>8.3f}" for score in row))
    elsewhere = left_out(grid, series)
    print(f"\nThe series left out: {mean(elsewhere):.3f}, standard deviation {stdev(elsewhere):.3f}")


if __name__ == "__main__":
    main()
