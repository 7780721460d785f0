"""What holds of every Lua script, read from its text: it says what it uses, and no name means two things."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import worker.server

FOLDER = Path(worker.server.__file__).parent / "lua"
FILES = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.lua"))}
_CALLS = re.compile(r'Script\("(\w+)"')
SCRIPTS = {name for file in FOLDER.parents[1].rglob("*.py") for name in _CALLS.findall(file.read_text())}

LUA = {
    *("KEYS", "ARGV", "redis", "cjson", "bit", "string", "table", "math"),
    *("ipairs", "pairs", "next", "unpack", "pcall", "tonumber", "tostring", "type", "select", "setmetatable", "error"),
}
"""Globals of Lua and of the server; a script has no others."""

KEYWORDS = {
    *("and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not"),
    *("or", "repeat", "return", "then", "true", "until", "while"),
}
TOKENS = re.compile(
    r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|[A-Za-z_]\w*|\d+(?:\.\d+)?|\.\.\.?|[=~<>]=|\S", re.ASCII
)


def included(name: str) -> list[str]:
    """What the first line of a file includes."""
    first = FILES[name].partition("\n")[0]
    return first.removeprefix("-- include: ").split(", ") if first.startswith("-- include: ") else []


def all_included(name: str) -> set[str]:
    """What a file includes, directly or not."""
    return {one for direct in included(name) for one in {direct, *all_included(direct)}}


def header(name: str) -> str:
    """The comment with which a file begins, without the line of what it includes."""
    lines = FILES[name].splitlines()[bool(included(name)) :]
    end = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return " ".join(line.removeprefix("--").strip() for line in lines[:end])


class Names(NamedTuple):
    """What a text makes and uses of names.

    Attributes:
        top: Those that it declares outside of every block.
        shadowing: Those that are declared although another file, Lua or the server gives them a meaning.
        undeclared: Those that mean nothing where they are read or written.
    """

    top: set[str]
    shadowing: list[str]
    undeclared: list[str]


class _Reader:
    """Reads a file token by token, with a scope for each block."""

    def __init__(self, text: str, known: set[str]) -> None:
        tokens = [one for one in TOKENS.findall(text) if not one.startswith("--")]
        self._tokens: list[str] = [*tokens, ""]
        self._at = 0
        self._scopes: list[set[str]] = [set()]
        self._known = known
        self.shadowing: list[str] = []
        self.undeclared: list[str] = []

    def read(self) -> Names:
        while self._tokens[self._at]:
            self._step()
        assert len(self._scopes) == 1, "a block is not ended, or ended twice"
        return Names(self._scopes[0], self.shadowing, self.undeclared)

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _means_something(self, name: str) -> bool:
        return name in self._known or any(name in scope for scope in self._scopes)

    def _declare(self, names: list[str]) -> None:
        self.shadowing += [name for name in names if name in self._known]
        self._scopes[-1].update(names)

    def _names(self) -> list[str]:
        found = [self._next()]
        while self._tokens[self._at] == ",":
            self._at += 1
            found.append(self._next())
        return found

    def _step(self) -> None:
        token = self._next()
        if token == "local" and self._tokens[self._at] == "function":
            self._at += 1
            self._declare([self._next()])
            self._function()
        elif token == "local":
            self._declare(self._names())
        elif token == "function":
            if self._tokens[self._at] != "(":
                while self._tokens[self._at] != "(":
                    self._use(self._next())
            self._function()
        elif token == "for":
            self._for()
        elif token in {"do", "then", "repeat", "else"}:
            self._begin(token)
        elif token in {"end", "until", "elseif"}:
            self._scopes.pop()
        else:
            self._use(token)

    def _begin(self, token: str) -> None:
        if token == "else":
            self._scopes.pop()
        self._scopes.append(set())

    def _function(self) -> None:
        self._scopes.append(set())
        assert self._next() == "("
        if self._tokens[self._at] != ")":
            self._declare(self._names())
        assert self._next() == ")"

    def _for(self) -> None:
        names = self._names()
        while self._tokens[self._at] != "do":
            if self._tokens[self._at] == "function":
                self._at += 1
                self._function()
            else:
                self._use(self._next())
        self._at += 1
        self._scopes.append(set())
        self._declare(names)

    def _use(self, token: str) -> None:
        before = self._tokens[self._at - 2] if self._at > 1 else ""
        after = self._tokens[self._at]
        is_field = before in {".", ":"} or (after == "=" and before in {"{", ","} and self._in_table())
        if token.isidentifier() and token not in KEYWORDS and not is_field and not self._means_something(token):
            self.undeclared.append(token)

    def _in_table(self) -> bool:
        depth = 0
        for token in reversed(self._tokens[: self._at - 1]):
            if token in {"}", ")"}:
                depth += 1
            elif token in {"{", "("}:
                if depth == 0:
                    return token == "{"
                depth -= 1
        return False


def names_of(text: str, known: set[str]) -> Names:
    """What a text makes of names, where some are known."""
    return _Reader(text, known).read()


@cache
def checked(name: str) -> Names:
    """What a file makes of names, with those of the files that it includes."""
    return names_of(FILES[name], LUA | {one for other in all_included(name) for one in own_names(other)})


def own_names(name: str) -> set[str]:
    """The names that a file declares for those that include it."""
    return checked(name).top


@pytest.mark.parametrize("name", FILES)
def test_no_name_is_global_and_none_is_shadowed(name: str) -> None:
    """A file that is included cannot change what another one means."""
    found = checked(name)
    assert (found.undeclared, found.shadowing) == ([], [])


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_no_two_files_of_a_script_give_a_name_a_meaning(name: str) -> None:
    """Neither of two files that one script includes needs to know of the other."""
    meanings = Counter(one for file in {name, *all_included(name)} for one in own_names(file))
    assert [one for one, files in meanings.items() if files > 1] == []


@pytest.mark.parametrize(
    ("text", "undeclared", "shadowing"),
    [
        ("local a = 1\nb = a\n", ["b"], []),
        ("local a = 1\nif a then\n  local redis = 2\nend\n", [], ["redis"]),
        ("local function f(type)\n  return type\nend\n", [], ["type"]),
        ("for _, call in ipairs({}) do\n  x(call)\nend\n", ["x"], ["call"]),
        ("local t = { a = 1, b = { c = 2 } }\nt.d = t.a\n", [], []),
        ("if KEYS[1] then\n  local a = 1\nend\nreturn a\n", ["a"], []),
        ("local f = function(a) return a end\nreturn f(1), 'it''s -- b'\n", [], []),
        ("-- c = 1\nlocal call, other = 1, 2\nother = call\n", [], ["call"]),
    ],
)
def test_the_check_finds_what_it_looks_for(text: str, undeclared: list[str], shadowing: list[str]) -> None:
    """Assignments to what nobody declared, reads of what is out of scope, and names that are taken."""
    found = names_of(text, LUA | {"call"})
    assert (found.undeclared, found.shadowing) == (undeclared, shadowing)


@pytest.mark.parametrize("name", FILES)
def test_each_file_says_what_it_does_and_which_keys_it_touches(name: str) -> None:
    """In the comment at its beginning; a script also says what its arguments are, in order, and what it answers."""
    said = header(name)
    touched = set(re.findall(r"KEY\.(\w+)", FILES[name])) if name != "keys" else set()
    listed = re.search(r"Keys: ([\w, ]+)\.", said)
    assert (set(listed[1].split(", ")) if listed else set()) == touched
    assert said.partition(" Arguments:")[0].partition(" Keys:")[0]
    if name in SCRIPTS:
        assert " Arguments: " in said
        assert " Answer: " in said


def test_each_file_is_a_script_or_included_by_one() -> None:
    """None is left over, and what is included is there."""
    assert set(FILES) == SCRIPTS | {one for name in SCRIPTS for one in all_included(name)}


def test_only_one_file_names_keys() -> None:
    """Scripts do not know what a key begins with."""
    assert [name for name, text in FILES.items() if re.search(r"\bKEYS\b", text)] == ["keys"]


@pytest.mark.parametrize("name", FILES)
def test_one_thing_has_one_word(name: str) -> None:
    """A priority is no lane, and what is told is not noted."""
    code = "\n".join(line.partition("--")[0] for line in FILES[name].splitlines())
    assert {"lane", "lanes", "note"} & set(re.findall(r"[a-z]+", code)) == set()
