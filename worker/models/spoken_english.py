"""Spoken English: how formal a sentence is, whether it ends, and the sentence without its stutter.

It must never add a word, or drop one that carries meaning. Other languages are not its business: ask `is_english`.
"""

from __future__ import annotations

import re

INTERJECTIONS = frozenset(
    ["ah", "eh", "er", "erm", "hm", "hmm", "huh", "mhm", "mm", "oh", "ok", "okay", "uh", "uhm", "um", "yeah", "yep"]
)
_HESITATIONS = INTERJECTIONS - {"oh", "ok", "okay", "yeah", "yep"}
# fmt: off
_NAMING = frozenset([
    "a", "about", "after", "against", "among", "an", "as", "at", "before", "between", "by", "during", "for", "from",
    "in", "into", "of", "on", "over", "since", "the", "through", "to", "towards", "under", "with", "within", "without",
])
_PERSONAL = frozenset([
    "he", "her", "him", "his", "i", "it", "its", "me", "my", "myself", "our", "she", "their", "them", "they", "us",
    "we", "you", "your", "yourself",
])
# fmt: on
_LITTLE = _NAMING | _PERSONAL
_NEVER_LAST = frozenset(["a", "an", "and", "because", "but", "if", "my", "of", "or", "our", "the", "their", "your"])

_ONLY_ENGLISH = frozenset(["and", "for", "from", "that", "the", "they", "this", "with", "you"])
_ENGLISH = 0.05  # the least share of those in an English text

# ruff: noqa: RUF001 - the typographic apostrophe is meant
_WORD = re.compile(r"\w+")
_LOOSE = re.compile(r"\s+(?=[.,?!;:]+(?:\s|$)|(?:n['’]t|['’](?:s|m|d|re|ve|ll))\b)", re.IGNORECASE)


def words_of(text: str) -> list[str]:
    """The words in lower case; what follows an apostrophe is a word of its own."""
    return _WORD.findall(text.lower())


def is_english(text: str) -> bool:
    """Whether the text is English, by the words that only English has."""
    words = words_of(text)
    return sum(word in _ONLY_ENGLISH for word in words) > _ENGLISH * len(words)


def formality(words: list[str]) -> float:
    """Between -1 and 1: the share of articles and prepositions, less the share of personal pronouns.

    It is high where things are named, and low where one must have been there to understand (Heylighen & Dewaele 2002).
    """
    balance = sum((word in _NAMING) - (word in _PERSONAL) for word in words)
    return balance / len(words) if words else 0.0


def is_unfinished(words: list[str]) -> bool:
    """Whether the speaker broke off, after "of", "the", "and" or the like."""
    return bool(words) and words[-1] in _NEVER_LAST


def tidied(sentence: str) -> str:
    """The sentence without "uh" and the like, without "on the on the", and without spaces before punctuation.

    Only articles, prepositions and personal pronouns lose their repetition: "five five" may be a number.
    """
    kept: list[str] = []
    bare: list[str] = []
    for word in _LOOSE.sub("", sentence).split():
        plain = word.strip(".,?!;:-").lower()
        if plain in _HESITATIONS:
            # The end of a sentence stays, although its last word goes.
            if kept and word[-1] in ".?!":
                kept[-1] = kept[-1].rstrip(",") + word[-1]
            continue
        kept.append(word)
        bare.append(plain)
        for count in (1, 2) if plain in _LITTLE else ():
            again = bare[-count:]
            if again == bare[-2 * count : -count] and _LITTLE.issuperset(again):
                del kept[-2 * count : -count], bare[-2 * count : -count]
    return " ".join(kept)
