"""Text of others, made fit to be shown: what would steer a terminal, or cannot be printed, is written as an escape.

Never changes what is stored; only what a person sees.
"""

from __future__ import annotations

import re

SHOWN = 80
"""Characters of a value that a complaint shows."""

# Control characters but tab and newline, separators of lines, marks that turn the direction of writing, and halves of
# characters, which Python makes of bytes that are no UTF-8.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""The text with what would steer a terminal written as an escape, such as `\x1b`; tabs and newlines stay."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(value: str) -> str:
    """A value in a complaint: on the same line, visible, and not too long."""
    line = visible(value[: SHOWN + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
