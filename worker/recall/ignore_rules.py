"""The rules of one `.gitignore` (or `.git/info/exclude`, or a user's globs), read as git reads them.

A file's rules become one regular expression, so that a tree of many files is matched quickly, and one that cannot be
made to run for ever by a hostile pattern. It works on bytes, as git does, and never touches the disk.
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


class _Malformed(ValueError):
    """The pattern matches nothing, as git has it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: bytes
    ignores: bool
    folders_only: bool


class IgnoreRules:
    """What the lines of one file of rules say about what lies beneath its folder."""

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
        """Whether the last rule that matches ignores it (True) or wants it back (False); `None` where none matches.

        Args:
            path: Relative to the folder of the rules, with `/`.
            folder: Whether it is one.
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
    # The last rule that matches counts, and of alternatives the first is taken.
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
        except _Malformed:
            continue
        if pattern:
            yield _Rule(regex, ignores, folders_only)


def _without_trailing_spaces(line: bytes) -> bytes:
    kept = line.rstrip(b" ")
    escaped = (len(kept) - len(kept.rstrip(b"\\"))) % 2 == 1
    return line[: len(kept) + 1] if escaped else kept


def _name(pattern: bytes) -> bytes:
    """A pattern without a slash: it is about names, wherever they are."""
    return _within_a_folder(list(_tokens(pattern)))


def _path(pattern: bytes) -> bytes:
    """A pattern with a slash: it is about paths from the folder of the rules.

    `**/` is any number of folders. What stands before the first wildcard is compared first, and for what comes
    after it the pattern begins there: for git a `**` is then at a beginning, whatever was before it.
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
    # What the first of two `**` leaves is enough for the second: nothing need be tried again.
    middle = b"".join(rb"(?>(?:.*?/)??%s)" % one for one in others[:-1])
    return re.escape(pattern[:cut]) + first + middle + rb"(?:.*/)?" + others[-1] + tail


def _within_a_folder(tokens: list[bytes]) -> bytes:
    """The regular expression of tokens in which a star stays within a name.

    All stars but the last take as little as they can and never again: what follows them is a star.
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
    """A character, `?`, `*`, `**` (two stars or more, before the end), `**/`, or the regular expression of a set."""
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
                raise _Malformed
            # As a set, so that it is no wildcard.
            yield b"(?:%s)" % re.escape(pattern[at + 1 : at + 2])
            at += 2
        else:
            yield one
            at += 1


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The regular expression of a set of characters that begins before `at`, and where it ends."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    parts: list[bytes] = []
    before: bytes | None = None
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if at >= len(pattern):
            raise _Malformed
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
    # No set has the slash in it, not even one that says what it has not.
    regex = rb"[^/%s]" % inside if negated else rb"(?!/)[%s]" % inside if inside else _NEVER
    return regex, at + 1


def _character(pattern: bytes, at: int) -> tuple[bytes, int]:
    if pattern[at : at + 1] == b"\\":
        at += 1
    if at >= len(pattern):
        raise _Malformed
    return pattern[at : at + 1], at + 1


def _named_class(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """A class such as `[:alpha:]` as a part of a set, and where it ends; `None` if it is none."""
    end = pattern.find(b"]", at + 2)
    if end < 0:
        raise _Malformed
    if end - at < 3 or pattern[end - 1 : end] != b":":  # noqa: PLR2004 - the shortest is `[:]`
        return None
    if (inside := _POSIX_CLASSES.get(pattern[at + 2 : end - 1])) is None:
        raise _Malformed
    return inside, end + 1
