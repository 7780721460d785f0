"""Summaries without a network: the most important sentences of a text.

The weight of a word grows with its frequency, falls with the number of sentences that have it, and grows with the
nearness of its embedding (`wordllama`, shipped inside that package) to the embedding of the whole text. Sentences are
chosen one by one: each time the one with the most new weight for its length. One that names things, as writing does,
is worth more than one in "I" and "you", "uh" and stutter.

It must never write a word that is not in the text, or use the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, pairwise

from worker.errors import MissingExtra

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("tasks", "the embedded summarizer") from error

from worker.models.embedded import embedded_model
from worker.models.spoken_english import INTERJECTIONS, formality, is_english, is_unfinished, tidied, words_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_SENTENCE_WORDS = 60
"""The most words of a sentence; longer ones are cut, because a transcript may have no punctuation."""

_SHARE = 0.4  # the longest summary, as a share of the text's words
_MIN_WORDS = 8  # a shorter sentence says little on its own; it is taken only if no other fits, as is half a sentence
_LENGTH_POWER = 0.5  # 0 takes the longest sentences, 1 the densest and shortest
_REGISTER = 3.0  # how much a sentence is worth that reads like writing: e to the power of this, times its fluency
_SAID = 0.3  # the share of its weight that a word keeps after a chosen sentence has it
_COMMON = 1e-3  # words more frequent than this share say little of the topic (SIF, Arora et al. 2017)

# ruff: noqa: RUF001 - the punctuation of other scripts is meant
_MARK = re.compile(r"\{[A-Za-z_]{1,30}\}")
_WORD = re.compile(r"\w{1,40}(?:['’]\w{1,40})?")
# It starts only at the start of a run of marks, and does not backtrack: the time is linear in any text.
_END = re.compile(r"(?<![.!?…؟।])[.!?…؟।]++[\"'”’»)\]]*+(?=\s)|[。！？]+[」』”’）]*")
_NO_END = re.compile(
    r"(?<!\w)(?:[A-HJ-Z]|(?i:mr|mrs|ms|dr|prof|hon|rev|gen|sen|gov|messrs|mme|st|e\.g|i\.e|vs|cf|approx))\.(?=\s)"
    r"|(?<!\w)(?i:etc|inc|ltd|co|jr|sr|[ap]\.m)\.(?=\s+[a-z])"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order.

    They are verbatim, but each run of whitespace becomes one space, and transcribers' marks such as `{gap}` are gone.
    A line break always ends a sentence, as it ends a speaker's turn. A sentence has at most `MAX_SENTENCE_WORDS` words.
    """
    return list(chain.from_iterable(map(_split_line, _MARK.sub(" ", text).splitlines())))


def _split_line(line: str) -> Iterator[str]:
    inside = {match.end() for match in _NO_END.finditer(line)}
    ends = [match.end() for match in _END.finditer(line) if match.end() not in inside]
    for start, end in pairwise([0, *ends, len(line)]):
        yield from _cut(line[start:end].split())


def _cut(words: list[str]) -> Iterator[str]:
    start = 0
    while start < len(words):
        end = start + MAX_SENTENCE_WORDS
        if end < len(words):
            # Cut after the last comma or the like in the second half, so that the part reads as a clause.
            clauses = (i for i in range(end, end - MAX_SENTENCE_WORDS // 2, -1) if words[i - 1][-1] in ",;:")
            end = next(clauses, end)
        yield " ".join(words[start:end])
        start = end


class ExtractiveSummarizer:
    """Summarizes a text by its own sentences, without a network.

    One instance serves any number of threads. The first use in a process loads the model, in about 0.3 s.
    """

    name = "extractive-2"
    """The summarizer's name, a part of the digest of a summary's input. Raise its number when results change."""
    context_words: int | None = None
    """None: it takes a text of any length."""

    def summarize(self, text: str, *, max_words: int = 150) -> str:
        """The most important sentences of the text, in their order, one on each line.

        They are verbatim, but in English "uh", "the the" and spaces before punctuation are gone.

        The summary has at most `max_words` words, and at most 40 % of the words of the text, or is a single sentence.
        Words are separated by whitespace. The same text always gives the same summary; an empty one gives "".
        If every sentence has more than `max_words` words, the best one is cut there and ends with "…".
        It occupies a CPU, for less than half a second for 15,000 words: call it in a thread pool.

        Raises:
            ValueError: `max_words` is less than 1.
        """
        if max_words < 1:
            raise ValueError(f"max_words is {max_words}: pass 1 or more")
        sentences = split_sentences(text)
        if not sentences:
            return ""
        english = is_english(" ".join(sentences))
        if english:
            sentences = [tidy for tidy in map(tidied, sentences) if tidy]
        lengths = np.array([len(sentence.split()) for sentence in sentences])
        ranking = _Ranking(sentences, lengths, english)
        chosen = ranking.choose(min(max_words, int(_SHARE * lengths.sum())))
        # In a text of few sentences, one sentence may have more words than the allowed share.
        chosen = chosen or ranking.choose(max_words, at_most=1)
        if chosen:
            return "\n".join(sentences[i] for i in sorted(chosen))
        [best] = ranking.choose(MAX_SENTENCE_WORDS, at_most=1)
        return " ".join(sentences[best].split()[:max_words]) + "…"


class _Ranking:
    """The weights of one text's words, and the choice of sentences by them."""

    def __init__(self, sentences: list[str], lengths: Ints, english: bool) -> None:
        said = [_WORD.findall(sentence.lower()) for sentence in sentences]
        vocabulary = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(said)))}
        self._lengths = lengths
        spoken = list(map(words_of, sentences))
        fluency = np.array([_fluency(words, english) for words in spoken])
        self._worth = np.exp(_REGISTER * fluency) / lengths**_LENGTH_POWER
        self._words = [np.array([vocabulary[word] for word in dict.fromkeys(words)], np.int64) for words in said]
        finished = np.array([not (english and is_unfinished(words)) for words in spoken])
        self._sound = finished & (lengths >= _MIN_WORDS)
        self._flat = np.concatenate(self._words)
        self._sentence = np.repeat(np.arange(len(said)), [len(words) for words in self._words])
        counts = np.bincount([vocabulary[word] for word in chain.from_iterable(said)], minlength=len(vocabulary))
        self._weights = self._weigh(list(vocabulary), counts)

    def _weigh(self, vocabulary: list[str], counts: Ints) -> Floats:
        if not vocabulary:
            return np.zeros(0)
        sentences = len(self._words)
        rarity = np.log((sentences + 1) / np.bincount(self._flat)) / np.log(sentences + 1)
        weights = np.log1p(counts) * rarity * _nearness(vocabulary, counts)
        return np.where([word in INTERJECTIONS for word in vocabulary], 0.0, weights)

    def choose(self, budget: int, at_most: int | None = None) -> list[int]:
        """The numbers of the chosen sentences, the best first, with at most `budget` words in all."""
        weights, chosen = self._weights.copy(), list[int]()
        gains = self._gains(weights)
        free = self._sound.copy()
        if not (free & (self._lengths <= budget)).any():
            free = np.ones(len(gains), dtype=bool)
        while at_most is None or len(chosen) < at_most:
            fits = free & (self._lengths <= budget)
            best = int(np.where(fits, gains, -1.0).argmax())
            if not fits[best] or (chosen and gains[best] <= 0):
                break
            chosen.append(best)
            free[best] = False
            budget -= int(self._lengths[best])
            weights[self._words[best]] *= _SAID
            gains = self._gains(weights)
        return chosen

    def _gains(self, weights: Floats) -> Floats:
        """The weight that each sentence would add to the summary."""
        added = np.bincount(self._sentence, weights[self._flat], len(self._words))
        return np.asarray(added * self._worth, np.float64)


def _fluency(words: list[str], english: bool) -> float:
    """Less for each "uh" and each word that repeats the word before; in English, more the more formal the words."""
    stutters = sum(word in INTERJECTIONS for word in words) + sum(a == b for a, b in pairwise(words))
    return (formality(words) if english else 0.0) - stutters / max(1, len(words))


def _nearness(vocabulary: list[str], counts: Ints) -> Floats:
    """The cosine between the embedding of each word and the embedding of the whole text; at least 0."""
    model = embedded_model()
    tokens = [model.tokens(word) or [0] for word in vocabulary]
    starts = np.cumsum([0, *map(len, tokens[:-1])])
    vectors = np.add.reduceat(model.embedding[list(chain.from_iterable(tokens))], starts)
    centre = (counts / (1 + counts / (_COMMON * counts.sum()))) @ vectors
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centre)
    return np.asarray(np.maximum(vectors @ centre / np.maximum(norms, 1e-9), 0.0))
