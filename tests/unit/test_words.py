"""Docstrings are plain sentences: a reader whose English is a second language reads them once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import worker

PACKAGE = Path(worker.__file__).parent
ROOMS = sorted(one.name for one in PACKAGE.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file())
"""Every room, and every module of the root."""

# A clause in the place of a noun: "What was found" is "The hits", "Whose stack is looked at" is "The loop's thread".
_CLAUSE = re.compile(r"(Has|How|Of|That|What|When|Where|Which|Who|Whose|Why)\b")
_ENTRY = re.compile(r"^ +\*{0,2}(\w+(?:, \w+)*): +(?=\S)", re.MULTILINE)
_UNCLEAR = {
    re.compile(r"`None`"): "write 'X, or None'",
    re.compile(r"(?<!there )\b(is|are) none\b"): "say what it is not",
    re.compile(r"\b(whoever|whosoever)\b", re.IGNORECASE): "name the thing or the person",
    re.compile(r"\b(of|by|from|to|for|with|about) (what|who|whom|whose)\b"): "write a noun",
    re.compile(r"\b(nothing|all|some|more|part) of what\b"): "write a noun",
    re.compile(r"\bnot any more\b"): "say what happened",
}


class Docstring(NamedTuple):
    """A docstring, of a module, a class, a function or an attribute."""

    place: str
    text: str


def docstrings(file: Path) -> Iterator[Docstring]:
    """All docstrings of a file, those of attributes too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Docstring(f"{file.relative_to(PACKAGE)}:{node.lineno}", node.value.value)


def complaints(text: str) -> Iterator[str]:
    """The clauses in the place of nouns, and the unclear phrases of a docstring."""
    starts = [0, *(found.end() for found in _ENTRY.finditer(text))]
    for start in starts:
        if found := _CLAUSE.match(text, start):
            yield f"'{found[0]}' begins a clause in the place of a noun"
    for pattern, remedy in _UNCLEAR.items():
        if found := pattern.search(text):
            yield f"'{found[0]}': {remedy}"


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_are_plain_sentences(room: str) -> None:
    """No docstring of these rooms, and none of its entries, has a clause in the place of a noun."""
    place = PACKAGE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    found = [f"{one.place}: {said}" for file in files for one in docstrings(file) for said in complaints(one.text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "What the index holds.",
        "Has the loop sleep.",
        "Of a sync that runs.",
        "A chunk.\n\n    Args:\n        path: Where it is.\n    ",
        "The repository, or `None`.",
        "The text is none.",
        "Gives the lock to whoever waits.",
        "The digest of what it was made from.",
    ],
)
def test_clauses_in_the_place_of_nouns_are_found(text: str) -> None:
    """The check finds what it is there for."""
    assert list(complaints(text))


@pytest.mark.parametrize(
    "text",
    [
        "The repository, or None.",
        "Whether the lock is taken.",
        "Waits at most `timeout` seconds.",
        "A chunk.\n\n    Args:\n        path: The path, with `/`.\n    ",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    """The check leaves plain sentences alone."""
    assert not list(complaints(text))
