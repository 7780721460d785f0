"""The rules of one `.gitignore` (or `.git/info/exclude`, or a user's globs), read as git reads them.

The rules of a file become one regular expression. It matches a tree of many files quickly, and no hostile pattern can
make it run for ever. It works on bytes, as git does, and never touches the disk.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SPECIAL = re.compile(rb"[*?[\\]")
_NEVER = rb"(?!)"

_POSIX_CLASSES = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9a-fA-F",
}


class Malformed(ValueError):
    """The pattern is malformed: for git, it matches nothing."""


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: bytes
    ignores: bool
    folders_only: bool


class IgnoreRules:
    """The rules of one file, for the paths below its folder."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._rules = tuple(_rules(lines))

    @classmethod
    def parse(cls, content: bytes) -> IgnoreRules:
        """The rules of a file with this content."""
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return cls(line.removesuffix(b"\r") for line in lines)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: bytes, *, folder: bool) -> bool | None:
        """True if the last matching rule ignores the path, False if it includes it again, or None without a match.

        Args:
            path: The path relative to the folder of the rules, with `/`.
            folder: Whether the path is a folder.
        """
        regex, verdicts = self._for_folders if folder else self._for_files
        found = regex.fullmatch(path) if verdicts else None
        return None if found is None or found.lastindex is None else verdicts[found.lastindex - 1]

    @functools.cached_property
    def _for_folders(self) -> tuple[re.Pattern[bytes], list[bool]]:
        return _compiled(self._rules)

    @functools.cached_property
    def _for_files(self) -> tuple[re.Pattern[bytes], list[bool]]:
        return _compiled(rule for rule in self._rules if not rule.folders_only)


def _compiled(rules: Iterable[_Rule]) -> tuple[re.Pattern[bytes], list[bool]]:
    # The last matching rule counts, but a regular expression takes the first matching alternative.
    backwards = list(rules)[::-1]
    regex = b"|".join(b"(%s)" % rule.regex for rule in backwards)
    return re.compile(regex, re.DOTALL), [rule.ignores for rule in backwards]


def _rules(lines: Iterable[bytes]) -> Iterator[_Rule]:
    for line in lines:
        pattern = _without_trailing_spaces(line)
        if not pattern or pattern.startswith(b"#"):
            continue
        ignores = not pattern.startswith(b"!")
        pattern = pattern if ignores else pattern[1:]
        folders_only = pattern.endswith(b"/")
        pattern = pattern[:-1] if folders_only else pattern
        try:
            regex = _path(pattern) if b"/" in pattern else rb"(?>.*/)?" + _name(pattern)
        except Malformed:
            continue
        if pattern:
            yield _Rule(regex, ignores, folders_only)


def _without_trailing_spaces(line: bytes) -> bytes:
    kept = line.rstrip(b" ")
    escaped = (len(kept) - len(kept.rstrip(b"\\"))) % 2 == 1
    return line[: len(kept) + 1] if escaped else kept


def _name(pattern: bytes) -> bytes:
    """The regular expression of a pattern without a slash, which matches names in any folder."""
    return _within_a_folder(list(_tokens(pattern)))


def _path(pattern: bytes) -> bytes:
    """The regular expression of a pattern with a slash, which matches paths from the folder of the rules.

    `**/` stands for any number of folders. Git compares the text before the first wildcard on its own. Then the rest
    counts as a pattern of its own: a `**` after that text is at a beginning for git.
    """
    pattern = pattern.removeprefix(b"/")
    special = _SPECIAL.search(pattern)
    cut = special.start() if special else len(pattern)
    groups: list[list[bytes]] = [[]]
    tail = b""
    rest = pattern[cut:]
    at_boundary = True
    for token in _tokens(rest):
        if token.startswith(b"**") and at_boundary:
            if token == b"**/":
                groups.append([])
                continue
            tail = rb".*"  # at the very end
            break
        groups[-1].extend([b"*", b"/"] if token == b"**/" else [b"*" if token == b"**" else token])
        at_boundary = token in (b"/", b"**/")
    first, *others = [_within_a_folder(group) for group in groups]
    if not others:
        return re.escape(pattern[:cut]) + first + tail
    # The rest after the first of two `**` is enough for the second: no backtracking is needed.
    middle = b"".join(rb"(?>(?:.*?/)??%s)" % one for one in others[:-1])
    return re.escape(pattern[:cut]) + first + middle + rb"(?:.*/)?" + others[-1] + tail


def _within_a_folder(tokens: list[bytes]) -> bytes:
    """The regular expression of tokens whose stars match inside one name.

    Each star but the last matches as little as possible, without backtracking, because another star follows.
    """
    runs: list[list[bytes]] = [[]]
    for token in tokens:
        if token.startswith(b"*"):
            runs.append([])
        else:
            runs[-1].append(re.escape(token) if len(token) == 1 and token != b"?" else token)
    first, *others = [b"".join(b"[^/]" if part == b"?" else part for part in run) for run in runs]
    if not others:
        return first
    return first + b"".join(rb"(?>[^/]*?%s)" % one for one in others[:-1]) + rb"[^/]*" + others[-1]


def _tokens(pattern: bytes) -> Iterator[bytes]:
    """The tokens of a pattern: a character, `?`, `*`, `**` (two or more stars), `**/`, or the expression of a set."""
    at = 0
    while at < len(pattern):
        one = pattern[at : at + 1]
        if one == b"*":
            stars = len(pattern) - at - len(pattern[at:].lstrip(b"*"))
            at += stars
            if stars > 1 and pattern[at : at + 1] == b"/":
                at += 1
                yield b"**/"
            else:
                yield b"**" if stars > 1 and at == len(pattern) else b"*"
        elif one == b"[":
            regex, at = _set(pattern, at + 1)
            yield regex
        elif one == b"\\":
            if at + 1 == len(pattern):
                raise Malformed
            # In a group, so that the character is not a wildcard.
            yield b"(?:%s)" % re.escape(pattern[at + 1 : at + 2])
            at += 2
        else:
            yield one
            at += 1


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The regular expression of a set of characters that begins before `at`, and the position after it."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    parts: list[bytes] = []
    before: bytes | None = None
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if at >= len(pattern):
            raise Malformed
        if pattern.startswith(b"[:", at) and (named := _named_class(pattern, at)) is not None:
            part, at = named
            parts.append(part)
            before = None
            continue
        if pattern[at : at + 1] == b"-" and before is not None and pattern[at + 1 : at + 2] not in (b"", b"]"):
            to, at = _character(pattern, at + 1)
            if before <= to:
                parts.append(re.escape(before) + b"-" + re.escape(to))
            before = None
            continue
        before, at = _character(pattern, at)
        parts.append(re.escape(before))
    inside = b"".join(parts)
    # No set matches the slash, not even a negated one.
    regex = rb"[^/%s]" % inside if negated else rb"(?!/)[%s]" % inside if inside else _NEVER
    return regex, at + 1


def _character(pattern: bytes, at: int) -> tuple[bytes, int]:
    if pattern[at : at + 1] == b"\\":
        at += 1
    if at >= len(pattern):
        raise Malformed
    return pattern[at : at + 1], at + 1


def _named_class(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """A class such as `[:alpha:]` as a part of a set, and the position after it; or None if it is not a class."""
    end = pattern.find(b"]", at + 2)
    if end < 0:
        raise Malformed
    if end - at < 3 or pattern[end - 1 : end] != b":":  # noqa: PLR2004 - the shortest is `[:]`
        return None
    if (inside := _POSIX_CLASSES.get(pattern[at + 2 : end - 1])) is None:
        raise Malformed
    return inside, end + 1
