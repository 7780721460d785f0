"""Text made into words for the full-text index: the same for code and prose, in any language.

Never changes what is stored or shown, and never reads a query as anything but words: there is no syntax.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

LONGEST = 40
"""Characters of a word that count: longer runs are keys, hashes and base64."""

MOST_WORDS = 200
"""Of a question: more of them find nothing more, and take longer."""

_RUN = re.compile(r"\w+")
# Scripts that put no space between words: their words are found by pairs of characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
_PART = re.compile(r"[^\W\d_]+|\d+")


def words_of(text: str) -> Iterator[str]:
    """The words of a text, in order, folded; a name such as `parseHTTP_url2` also gives each of its parts."""
    for run in _RUN.findall(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        yield from _words_of_run(run) if len(run) <= LONGEST else _of_run(run)


def first_words(text: str) -> list[str]:
    """The first words of a question, each once, in order: a word that is said twice in it does not mean more."""
    words: dict[str, None] = {}
    for word in words_of(text):
        words[word] = None
        if len(words) == MOST_WORDS:
            break
    return list(words)


def names_of(text: str) -> list[str]:
    """The names and words of a text as they are written there, in order; of very long ones the beginning."""
    runs = _RUN.findall(text if text.isascii() else unicodedata.normalize("NFKC", text))
    return [run[:LONGEST] for run in runs]


def spelled_out(name: str) -> str:
    """A name as a person would say it: `parseHTTP_url2` as four words. Scripts without spaces stay as they are."""
    return " ".join(hump.casefold() for part in _PART.findall(name) for hump in _humps(part))


def _of_run(run: str) -> Iterator[str]:
    return _named(run) if run.isascii() else _foreign(run)


@functools.lru_cache(maxsize=50_000)
def _words_of_run(run: str) -> tuple[str, ...]:
    """Remembered: a repository has few names, and each of them often."""
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
