"""Texts for people: foreign text is made safe to show, and numbers of things are put in words.

Escapes stand for control characters and for characters that cannot be printed. Only the shown text changes, never the
stored one.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from typing import TextIO

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


def write_any_text(stream: TextIO) -> None:
    r"""Lets a stream in an encoding of few characters write the others as JSON does, such as `\u00e9`.

    So JSON stays JSON, and no text ends a command with an error.
    """
    # Another stream, such as a test's, takes any text.
    if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
        stream.reconfigure(errors=_ESCAPES)


_ESCAPES = "worker-escapes"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPES, _escaped)
