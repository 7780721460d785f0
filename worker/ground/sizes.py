"""Sizes as people write them: `60MB`, `512MiB`, `1.5GB`, or a number of bytes.

The settings and the command line read them; all other modules use a number of bytes.
"""

from __future__ import annotations

import re

from worker.ground.texts import shown

_LETTERS = "kmgt"
_UNITS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{letter + end: 1000**power for power, letter in enumerate(_LETTERS, 1) for end in ("", "b")},
    **{letter + end: 1024**power for power, letter in enumerate(_LETTERS, 1) for end in ("i", "ib")},
}
# Possessive quantifiers: a long text that is not a size must be refused at once.
_WHOLE = re.compile(r"\s*+(\d++(?:\.\d++)?+)\s*+([a-z]*+)\s*+", re.IGNORECASE)
_MOST_DIGITS = 18
_ROUNDED_TO_A_THOUSAND = 999.5


def parse_size(text: str) -> int:
    """Reads texts such as `1000`, `60MB` (60 million bytes), `512MiB` or `512Mi` (512 times 1024 squared).

    Raises:
        ValueError: The text is not a size; the message shows how to write one.
    """
    found = _WHOLE.fullmatch(text)
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None or len(found[1]) > _MOST_DIGITS:
        raise ValueError(f"'{shown(text)}' is not a size: write 60MB, 512MiB, 1.5GB, or a number of bytes")
    number: str = found[1]
    return round(float(number) * unit) if "." in number else int(number) * unit


def format_size(size: float) -> str:
    """Writes a size so that `parse_size` reads it, rounded to three digits: `512 B`, `1.5 kB`, `60 MB`."""
    power = 0
    while size >= _ROUNDED_TO_A_THOUSAND and power < len(_LETTERS):
        size, power = size / 1000, power + 1
    letter = ["", *_LETTERS][power]
    number = f"{size:.3g}" if size < _ROUNDED_TO_A_THOUSAND else f"{size:.0f}"
    return f"{number} {letter if letter in ('', 'k') else letter.upper()}B"
