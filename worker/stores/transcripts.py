"""Joins the transcripts of a conversation's chunks into one text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_ENDS_A_SENTENCE = re.compile("[.!?\u2026\u3002\uff01\uff1f]\\W*$")

_LONGEST_END = 10


def clean(transcripts: Iterable[str]) -> str:
    """Joins the transcripts into one text, without control characters, with single spaces, and with its lines.

    If a transcript ends inside a sentence, the next transcript continues the same line.
    """
    parts: list[str] = []
    for transcript in transcripts:
        lines = [line for line in map(_printable, transcript.splitlines()) if line]
        if lines:
            if parts:
                parts.append("\n" if _ENDS_A_SENTENCE.search(parts[-1][-_LONGEST_END:]) else " ")
            parts.append("\n".join(lines))
    return "".join(parts)


def _printable(line: str) -> str:
    kept = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Co", "Cn"} else char for char in line)
    return " ".join(kept.split())
