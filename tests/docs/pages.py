"""The pages of the documentation, and what is in them: blocks of code, command lines, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: .+ -->\n\Z")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"""\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|\bsrc(?:set)?="([^"]+)\"""", re.MULTILINE)
_DEFINED = re.compile(r"^\[([^\]]+)\]: ", re.MULTILINE)
_REFERRED = re.compile(r"\]\[([^\]]+)\]")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code in a page.

    Attributes:
        line: The line of the page on which its code begins, from 1.
        runs: False when a comment above it says that it is not run.
    """

    language: str
    code: str
    line: int
    runs: bool


def name_of(page: Path) -> str:
    """The page's path in the project."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """The page's blocks in a language, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            language=found[1],
            code=found[2],
            line=text.count("\n", 0, found.start(2)) + 1,
            runs=_NOT_RUN.search(text, 0, found.start()) is None,
        )
        for found in _BLOCK.finditer(text)
        if found[1] == language
    ]


def command_lines(page: Path) -> Iterator[list[list[str]]]:
    """The words of each command after a `$` in the page's console blocks; `&&` joins several in a line."""
    for block in blocks(page, "console"):
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield [shlex.split(part) for part in line.removeprefix("$ ").removesuffix("&").split("&&")]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """What the page links to, with its pictures."""
    return ["".join(found) for found in _LINK.findall(prose(page))]


def names_of_links(page: Path) -> tuple[set[str], set[str]]:
    """The names under which the page defines links at its end, and those that it uses."""
    text = prose(page)
    return set(_DEFINED.findall(text)), set(_REFERRED.findall(text))


def anchors(page: Path) -> set[str]:
    """The names under which the page's headings can be linked to."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(page))}
