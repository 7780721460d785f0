"""Splits text into words for the full-text index: code and prose alike, in any language.

It never changes the stored or the shown text. A query is only words: it has no syntax.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

LONGEST = 40
"""The most characters of a word; longer runs, such as keys, hashes and base64, are cut."""

MOST_WORDS = 200
"""The most words of a question; more words find nothing more, and take longer."""

_RUN = re.compile(r"\w+")
# Scripts without spaces between words: pairs of characters stand for their words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_PART = re.compile(r"[^\W\d_]+|\d+")


def words_of(text: str) -> Iterator[str]:
    """The words of a text, in order, in folded case; a name such as `parseHTTP_url2` also gives each of its parts."""
    for run in _RUN.findall(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        yield from _words_of_run(run) if len(run) <= LONGEST else _of_run(run)


def first_words(text: str) -> list[str]:
    """The first `MOST_WORDS` words of a question, in order, each once: a repeated word does not mean more."""
    words: dict[str, None] = {}
    for word in words_of(text):
        words[word] = None
        if len(words) == MOST_WORDS:
            break
    return list(words)


def names_of(text: str) -> list[str]:
    """The names and words of a text, as written, in order; very long ones are cut after `LONGEST` characters."""
    runs = _RUN.findall(text if text.isascii() else unicodedata.normalize("NFKC", text))
    return [run[:LONGEST] for run in runs]


def spelled_out(name: str) -> str:
    """The name as a person says it: `parseHTTP_url2` as four words. Scripts without spaces stay unchanged."""
    return " ".join(hump.casefold() for part in _PART.findall(name) for hump in _humps(part))


def _of_run(run: str) -> Iterator[str]:
    return _named(run) if run.isascii() else _foreign(run)


@functools.lru_cache(maxsize=50_000)
def _words_of_run(run: str) -> tuple[str, ...]:
    """The words of one run. They are cached, because a repository repeats few names often."""
    return tuple(_of_run(run))


def _named(run: str) -> Iterator[str]:
    whole = run.strip("_")
    if whole:
        yield whole[:LONGEST].casefold()
    parts = [piece for part in _PART.findall(run) for piece in _humps(part)]
    if len(parts) > 1:
        yield from (part[:LONGEST].casefold() for part in parts)


def _humps(part: str) -> Iterator[str]:
    """The words of a name in camel case: `parseHTTPReply` has three."""
    ends = [
        place
        for place in range(1, len(part))
        if part[place].isupper()
        and (not part[place - 1].isupper() or (place + 1 < len(part) and part[place + 1].islower()))
    ]
    for start, end in pairwise([0, *ends, len(part)]):
        yield part[start:end]


def _foreign(run: str) -> Iterator[str]:
    start = 0
    for unspaced in _UNSPACED.finditer(run):
        yield from _named(run[start : unspaced.start()])
        text = unspaced[0]
        yield from (text[place : place + 2] for place in range(max(1, len(text) - 1)))
        start = unspaced.end()
    yield from _named(run[start:])
