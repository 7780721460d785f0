"""Compares the embedded summarizer with those of sumy, and with the first words of the text, on real meetings.

Run it with `python bench/summaries.py`; it needs `pip install 'dramatiq-bridge[tasks,bench]'` and no network.

Every contender gets the same sentences and the same limit of 150 words, and takes turns with the others in the same
process, so that a busy machine slows all of them. Scores compare with a person's summary (ROUGE F, with stemming). sumy
gets its English stemmer and stop words; its ranked sentences are taken as long as they fit.
LSA depends on the order of sets: `PYTHONHASHSEED=0` gives the same figures each time.
"""

import argparse
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

try:
    from rouge_score.rouge_scorer import RougeScorer
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.nlp.stemmers import Stemmer
    from sumy.summarizers.lsa import LsaSummarizer
    from sumy.summarizers.text_rank import TextRankSummarizer
    from sumy.utils import get_stop_words

    from worker.models.extractive import ExtractiveSummarizer, split_sentences
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: pip install 'dramatiq-bridge[bench]'")
    sys.exit(2)

MAX_WORDS = 150
LONG = 15_000
MEETINGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "meetings"


class Tokenizer:
    """Our sentences and simple words for sumy, whose own tokenizer has to download its data."""

    def to_sentences(self, text: str) -> list[str]:
        """The sentences from which every contender chooses."""
        return split_sentences(text)

    def to_words(self, sentence: str) -> list[str]:
        """The runs of letters, digits and apostrophes."""
        return re.findall(r"\w+(?:['’]\w+)?", sentence)  # noqa: RUF001 - the typographic apostrophe


def lead(text: str) -> str:
    """The first words of the text."""
    return " ".join(" ".join(split_sentences(text)).split()[:MAX_WORDS])


def ours(text: str) -> str:
    return ExtractiveSummarizer().summarize(text, max_words=MAX_WORDS)


def sumy(algorithm: Any) -> Callable[[str], str]:  # noqa: ANN401 - sumy has no types
    summarizer = algorithm(Stemmer("english"))
    summarizer.stop_words = get_stop_words("english")
    tokenizer = Tokenizer()

    def summarize(text: str) -> str:
        # Without sumy's parser, which reads "OK ." as a heading and joins lines: the sentences would differ.
        sentences = [Sentence(sentence, tokenizer) for sentence in tokenizer.to_sentences(text)]
        document = ObjectDocumentModel([Paragraph(sentences)])
        return "\n".join(str(sentence) for sentence in summarizer(document, while_they_fit))

    return summarize


def while_they_fit(ranked: Sequence[Any]) -> list[Any]:
    """The best sentences, with at most `MAX_WORDS` words in all; sumy puts them into the order of the text."""
    taken, left = [], MAX_WORDS
    for info in ranked:
        words = len(str(info.sentence).split())
        if words <= left:
            taken.append(info)
            left -= words
    return taken


CONTENDERS: dict[str, Callable[[str], str]] = {
    "ours": ours,
    f"lead-{MAX_WORDS}-words": lead,
    "sumy LSA": sumy(LsaSummarizer),
    "sumy TextRank": sumy(TextRankSummarizer),
}


def meetings(folder: Path) -> list[tuple[str, str]]:
    """The text of each meeting, with a turn on each line, and a person's summary of it."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return [("\n".join(turn["text"] for turn in meeting["turns"]), meeting["summary"]) for meeting in found]


def long_text(texts: list[str]) -> str:
    """The first turns of all meetings, `LONG` words in all; meetings are repeated if there are too few."""
    turns, words = [], 0
    while words < LONG:
        for turn in "\n".join(texts).split("\n"):
            turns.append(turn)
            words += len(turn.split())
            if words >= LONG:
                break
    return "\n".join(turns)


def timed(summarize: Callable[[str], str], text: str) -> tuple[str, float]:
    start = perf_counter()
    summary = summarize(text)
    return summary, perf_counter() - start


def measure(pairs: list[tuple[str, str]], rounds: int) -> dict[str, dict[str, float]]:
    """Scores and seconds of every contender."""
    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=True)
    plain = RougeScorer(["rouge1"], use_stemmer=False)
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in CONTENDERS}
    for text, reference in pairs:
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            summaries = {}
            for name, summarize in CONTENDERS.items():
                summaries[name], took = timed(summarize, text)
                seconds[name].append(took)
        for name, summary in summaries.items():
            scores = scorer.score(reference, summary)
            unstemmed = plain.score(reference, summary)["rouge1"].fmeasure
            counted = (scores["rouge1"].fmeasure, scores["rouge2"].fmeasure, unstemmed, len(summary.split()))
            rows[name].append((*counted, median(seconds[name])))
    return {name: averages(row) for name, row in rows.items()}


def averages(row: list[tuple[float, ...]]) -> dict[str, float]:
    rouge1, rouge2, unstemmed, words, seconds = zip(*row, strict=True)
    return {
        "rouge1_f": mean(rouge1),
        "rouge1_f_deviation": stdev(rouge1) if len(rouge1) > 1 else 0.0,
        "rouge2_f": mean(rouge2),
        "rouge1_f_unstemmed": mean(unstemmed),
        "words": mean(words),
        "seconds_a_meeting": median(seconds),
    }


def measure_long(text: str, rounds: int) -> dict[str, float]:
    """The median seconds of every contender for one long text."""
    taken = [{name: timed(summarize, text)[1] for name, summarize in CONTENDERS.items()} for _ in range(rounds)]
    return {name: median(seconds[name] for seconds in taken) for name in CONTENDERS}


def show(results: dict[str, dict[str, float]], long: dict[str, float], count: int) -> None:
    print(f"{count} meetings, at most {MAX_WORDS} words a summary, ROUGE with stemming\n")
    print(f"{'':16} {'ROUGE-1 F':>10} {'deviation':>10} {'ROUGE-2 F':>10} {'words':>6} {'s a meeting':>12}")
    for name, row in results.items():
        scores = (
            f"{row['rouge1_f']:>10.3f} {row['rouge1_f_deviation']:>10.3f} {row['rouge2_f']:>10.3f} {row['words']:>6.0f}"
        )
        print(f"{name:16} {scores} {row['seconds_a_meeting']:>12.4f}")
    print(f"\n{LONG} words: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in long.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the embedded summarizer with others.")
    parser.add_argument("--meetings", type=Path, default=MEETINGS, metavar="DIR", help="JSON files: turns and summary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median time counts")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: 1 or more")
    pairs = meetings(arguments.meetings)
    if not pairs:
        parser.error(f"no meetings (*.json) in {arguments.meetings}: pass --meetings DIR")
    # sumy warns of texts with more sentences than different words.
    warnings.simplefilter("ignore", UserWarning)
    for summarize in CONTENDERS.values():
        summarize("Load the model first. It is used later.")
    results = measure(pairs, arguments.rounds)
    long = measure_long(long_text([text for text, _ in pairs]), arguments.rounds)
    show(results, long, len(pairs))
    if arguments.json:
        report = {
            "meetings": len(pairs),
            "max_words": MAX_WORDS,
            "contenders": results,
            "seconds_for_15000_words": long,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
