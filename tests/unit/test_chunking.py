"""Cutting a text into pieces: nothing is lost, none is too long, and what belongs together stays together."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from worker.recall.chunking import LONGEST, OVERLAP, Piece, cut
from worker.recall.languages import _GRAMMARS, grammar_of, language_of

LANGUAGES = [None, "text", *_GRAMMARS]

COMMENT = "// some words"
SAMPLES = {
    "a.py": (
        "@decorated\ndef first():\n{}\n\nclass Store:\n    def get(self):\n{}\n    async def put(self):\n{}\n",
        "        x = 1  # some words",
    ),
    "a.js": (
        "export function first() {\n{}\n}\nclass Store {\n{}\n  get() {\n{}\n  }\n}\nconst put = () => {\n{}\n}\n",
        COMMENT,
    ),
    "a.ts": ("interface Shape {\n{}\n}\nexport class Store {\n  get(): void {\n{}\n  }\n}\n", COMMENT),
    "a.tsx": ("export function View() {\n{}\n}\n", COMMENT),
    "a.go": ("package a\n\nfunc First() {\n{}\n}\n\nfunc (s *Store) Get() {\n{}\n}\n", COMMENT),
    "a.rs": ("fn first() {\n{}\n}\nimpl Store {\n    fn get() {\n{}\n    }\n{}\n}\n", COMMENT),
    "A.java": ("class Store {\n{}\n  void get() {\n{}\n  }\n}\n", COMMENT),
    "a.c": ("int *first(int x) {\n{}\n}\nstruct store {\n{}\n};\n", COMMENT),
    "a.cpp": ("namespace shop {\n{}\nclass Store {\n{}\n};\n}\n", COMMENT),
    "a.cs": ("class Store {\n{}\n  void Get() {\n{}\n  }\n}\n", COMMENT),
    "a.rb": ("class Store\n{}\n  def get\n{}\n  end\nend\n", "# some words"),
    "a.php": ("<?php\nfunction first() {\n{}\n}\n", COMMENT),
    "a.sh": ("first() {\n{}\n}\n", "true # some words"),
    "a.md": ("# Top\n\n{}\n\n## Below\n\n{}\n", "words, and some more"),
}
NAMES = {
    "a.py": ["first", "Store.get", "Store.put"],
    "a.js": ["first", "Store", "Store.get", "put"],
    "a.ts": ["Shape", "Store"],
    "a.tsx": ["View"],
    "a.go": ["First", "Get"],
    "a.rs": ["first", "Store", "Store.get"],
    "A.java": ["Store", "Store.get"],
    "a.c": ["first", "store"],
    "a.cpp": ["shop", "shop.Store"],
    "a.cs": ["Store", "Store.Get"],
    "a.rb": ["Store", "Store.get"],
    "a.php": ["first"],
    "a.sh": ["first"],
    "a.md": ["Top", "Top.Below"],
}


def put_together(text: str, pieces: list[Piece]) -> str:
    """The text, from its pieces, each without what it shares with the one before it."""
    whole = ""
    for piece in pieces:
        assert piece.start <= len(whole) < piece.end
        whole += text[piece.start : piece.end][len(whole) - piece.start :]
    return whole


def check(text: str, pieces: list[Piece]) -> None:
    assert put_together(text, pieces) == text
    for piece in pieces:
        assert piece.start_line == text.count("\n", 0, piece.start) + 1
        assert piece.end_line == text.count("\n", 0, piece.end - 1) + 1
        assert len(text[piece.start : piece.end].strip()) <= LONGEST
        assert piece.end - piece.start <= 2 * LONGEST
    for one, other in pairwise(pieces):
        assert one.start < other.start
        assert one.end - other.start <= OVERLAP


WORDS = """
def f():|class A:|    |  return x|{|}|(|)|\'\'\'|"|# note|@d|x = 1|function g() {|if (a) {|# Title|## Sub|é|fn h() {
""".strip()
code = st.lists(
    st.sampled_from([*WORDS.split("|"), "\n", "\n\n", "\t", "\r\n", "\x0c", "\u2028"])
    | st.integers(1, 3000).map("z".__mul__)
    | st.integers(1, 400).map("w\n".__mul__),
    max_size=60,
).map("".join)


@settings(max_examples=examples(300))
@given(text=code | st.text(max_size=300), language=st.sampled_from(LANGUAGES))
def test_the_pieces_put_together_are_the_text(text: str, language: str | None) -> None:
    """In any language, right or wrong: none missing, none too long, each on the lines that it says."""
    check(text, cut(text, language))


@settings(max_examples=examples(30))
@given(text=code, language=st.sampled_from(LANGUAGES))
def test_the_same_text_is_always_cut_the_same_way(text: str, language: str | None) -> None:
    """Nothing is left of what was cut before."""
    assert cut(text, language) == cut(text, language)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_defined_is_a_piece_with_its_name(name: str) -> None:
    """In each language that has a grammar, definitions inside others with the names of these."""
    template, line = SAMPLES[name]
    text = template.replace("{}", "\n".join([line] * 90))
    pieces = cut(text, language_of(name))
    check(text, pieces)
    said = {symbol for piece in pieces for symbol in (piece.symbol or "").split(", ")}
    assert set(NAMES[name]) <= said


def test_every_grammar_is_installed() -> None:
    """The extra brings them, and none is downloaded."""
    assert all(grammar_of(language) is not None for language in _GRAMMARS)


def test_a_definition_has_what_is_said_above_it() -> None:
    """Its comments and decorators."""
    body = "".join(f"    x{number} = {number}\n" for number in range(60))
    text = f"import a\n\n\ndef one():\n{body}\n\n# About two.\n# More.\n@decorated\ndef two():\n{body}"
    [two] = [piece for piece in cut(text, "python") if piece.symbol == "two"]
    assert text[two.start : two.end].startswith("# About two.")


def test_short_definitions_are_joined() -> None:
    """A file of small functions is no heap of crumbs; its pieces name what is in them."""
    text = "".join(f"def f{number}():\n    return {number}\n\n\n" for number in range(100))
    pieces = cut(text, "python")
    check(text, pieces)
    assert len(pieces) < 15
    assert all((piece.symbol or "").startswith("f") for piece in pieces)


def test_an_empty_text_has_no_pieces() -> None:
    """Of nothing there is nothing to find."""
    assert cut("") == []


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "(" * 200_000,
        "[(" * 100_000,
        'f"{' * 60_000,
        "'" * 100_001,
        "a b c d " * 30_000,
        "if if else " * 20_000,
        "class A:\n" + "".join(" " * depth + "if x:\n" for depth in range(1, 700)),
        "\n" * 300_000,
        "{" * 100_000 + "\n" + "}" * 100_000,
    ],
    ids=["one line", "parentheses", "brackets", "f-strings", "quotes", "words", "ifs", "deep", "blank", "braces"],
)
@pytest.mark.parametrize("language", ["python", "cpp", "markdown", None])
def test_hostile_texts_are_cut_in_reasonable_time(text: str, language: str | None) -> None:
    """And put together they are themselves."""
    begun = time.process_time()
    pieces = cut(text, language)
    assert time.process_time() - begun < 30
    assert put_together(text, pieces) == text


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a.py", "python"),
        ("deep/er/A.PY", "python"),
        ("Makefile", "makefile"),
        ("a", None),
        ("a.unheard-of", None),
        (".gitignore", None),
        ("x/.py", None),
    ],
)
def test_the_name_tells_the_language(path: str, language: str | None) -> None:
    """By its suffix, whatever its case, or as a whole."""
    assert language_of(path) == language
