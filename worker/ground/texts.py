"""Texts for people: foreign text is made safe to show, and numbers of things are put in words.

Escapes stand for control characters and for characters that cannot be printed. Only the shown text changes, never the
stored one.
"""

from __future__ import annotations

import re

SHOWN = 80
"""The most characters of a value that an error message shows."""

# Control characters except tab and newline, line separators, marks that change the direction of writing, and lone
# surrogates, which Python makes from bytes that are not UTF-8.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def counted(number: int, what: str) -> str:
    """A number of things in words: `1 message`, `2 messages`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    r"""The text with an escape, such as `\x1b`, for each control character; tabs and newlines stay."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(value: str) -> str:
    """The value for an error message: on one line, escaped, and cut after `SHOWN` characters."""
    line = visible(value[: SHOWN + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
