"""Cuts a text into pieces for the index: along the structure of its language, or by lines.

A piece is a stretch of the text. The first piece begins at the begin of the text, the last ends at its end, and there
are no gaps: pieces of a structure follow each other, pieces cut by lines overlap. The text never changes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain

import tree_sitter

from worker.loops.thread_pool import cancel_requested
from worker.recall.languages import grammar_of

LONGEST = 1600
"""The most characters of a piece: about as much as a person reads at a glance, and an embedder reads as a whole."""

SHORTEST = 400
"""Characters below which a piece is joined with its neighbour, unless the result would be too long."""

OVERLAP = 200
"""The most characters that two pieces cut by lines share."""

_LONGEST_SYMBOL = 200

_READ_AT_ONCE = 4096
_FEWEST_STEPS = 1000
_BYTES_A_STEP = 5
"""Bytes of text for each allowed step of the parser; real programs need one step for a hundred bytes.

The limit counts steps and not seconds, so that the same text is always cut in the same way.
"""

_DEFINITIONS = frozenset(
    """
    abstract_class_declaration annotation_type_declaration class class_declaration class_definition class_specifier
    constructor_declaration enum_declaration enum_item enum_specifier function_declaration function_definition
    function_item generator_function_declaration impl_item interface_declaration internal_module lexical_declaration
    macro_definition method method_declaration method_definition mod_item module namespace_declaration
    namespace_definition property_declaration record_declaration section singleton_method struct_declaration struct_item
    struct_specifier trait_declaration trait_item type_alias_declaration type_declaration type_definition union_item
    union_specifier
    """.split()  # noqa: SIM905 - so many quotes cannot be read
)
_WRAPPERS = frozenset(["decorated_definition", "export_statement", "template_declaration"])
_LEADING = ("comment", "attribute", "decorator")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, from the character `start` to before `end`, and the lines it is on (the first is 1).

    Attributes:
        symbol: The name that it defines, such as `Store.get`, or None.
    """

    start: int
    end: int
    start_line: int
    end_line: int
    symbol: str | None = None


@dataclass(slots=True)
class _Definition:
    """A named part of a program, on the lines from `first` to `last` (the first line is 0)."""

    first: int
    last: int
    name: str
    inside: list[_Definition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Span:
    first: int
    last: int
    symbols: tuple[str, ...] = ()


class _Lines:
    """A text by its lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = text.split("\n")
        self.starts = list(accumulate((len(part) + 1 for part in parts), initial=0))
        # Text after the last line break is a line only if it is not empty.
        self.count = len(parts) - (not parts[-1])
        self.starts[self.count :] = [len(text)]

    def size(self, first: int, last: int) -> int:
        return self.starts[last + 1] - self.starts[first]

    def is_blank(self, span: _Span) -> bool:
        return self.text[self.starts[span.first] : self.starts[span.last + 1]].isspace()

    def piece(self, start: int, end: int, symbols: tuple[str, ...]) -> Piece:
        first = bisect_right(self.starts, start, hi=self.count) - 1
        last = bisect_right(self.starts, end - 1, hi=self.count) - 1
        return Piece(start, end, first + 1, last + 1, ", ".join(symbols)[:_LONGEST_SYMBOL] or None)


def cut(text: str, language: str | None = None) -> list[Piece]:
    """The pieces of a text, in order; an empty text has none.

    Args:
        text: Any text.
        language: The text's language, as `language_of` names it, or None.
    """
    if not text:
        return []
    lines = _Lines(text)
    grammar = grammar_of(language)
    definitions = [] if grammar is None else _definitions(text, lines, grammar)
    spans = _spans(0, lines.count - 1, definitions, (), lines)
    return [piece for span in _joined(spans, lines) for piece in _pieces(span, lines)]


def _spans(
    first: int, last: int, definitions: Iterable[_Definition], symbols: tuple[str, ...], lines: _Lines
) -> Iterator[_Span]:
    """The lines from `first` to `last`, divided at the definitions among them."""
    at = first
    for one in definitions:
        begin, end = max(one.first, at), min(one.last, last)
        if begin > end:
            continue  # on a line with the one before it
        if begin > at:
            yield _Span(at, begin - 1, symbols)
        name = f"{symbols[-1]}.{one.name}" if symbols else one.name
        if one.inside:
            yield from _spans(begin, end, one.inside, (name,), lines)
        else:
            yield _Span(begin, end, (name,))
        at = end + 1
    if at <= last:
        yield _Span(at, last, symbols)


def _joined(spans: Iterable[_Span], lines: _Lines) -> list[_Span]:
    """The spans, with each short one joined with the span before it."""
    joined: list[_Span] = []
    for span in spans:
        if joined and _belong_together(joined[-1], span, lines):
            before = joined.pop()
            # Blank lines define nothing.
            symbols = [one.symbols for one in (before, span) if not lines.is_blank(one)]
            joined.append(_Span(before.first, span.last, tuple(dict.fromkeys(chain(*symbols)))))
        else:
            joined.append(span)
    return joined


def _belong_together(before: _Span, span: _Span, lines: _Lines) -> bool:
    whole = lines.size(before.first, span.last)
    if lines.is_blank(span) or lines.is_blank(before):
        return whole <= 2 * LONGEST
    shorter = min(lines.size(before.first, before.last), lines.size(span.first, span.last))
    return whole <= LONGEST and shorter < SHORTEST


def _pieces(span: _Span, lines: _Lines) -> Iterator[Piece]:
    """The span as one piece, or cut by lines if it is too long."""
    start, end = lines.starts[span.first], lines.starts[span.last + 1]
    if len(lines.text[start:end].strip()) <= LONGEST and end - start <= 2 * LONGEST:
        yield lines.piece(start, end, span.symbols)
        return
    while True:
        stop = _stop(start, end, lines)
        yield lines.piece(start, stop, span.symbols)
        if stop >= end:
            return
        start = _next_start(start, stop, end, lines)


def _stop(start: int, end: int, lines: _Lines) -> int:
    """The end of the piece that begins at `start`: after its last complete line, or inside a line that is too long."""
    if end - start <= LONGEST:
        return end
    after = lines.starts[bisect_right(lines.starts, start + LONGEST) - 1]
    return after if after > start else start + LONGEST


def _next_start(start: int, stop: int, end: int, lines: _Lines) -> int:
    """The begin of the next piece: it repeats the last lines, or the last characters if the piece ends in a line."""
    line = bisect_right(lines.starts, stop) - 1
    if lines.starts[line] < stop:
        return stop - OVERLAP
    while lines.starts[line - 1] > start and stop - lines.starts[line - 1] <= OVERLAP:
        line -= 1
    # If a long line follows, the repeated lines would leave no room for new text.
    return lines.starts[line] if _stop(lines.starts[line], end, lines) > stop else stop


def _definitions(text: str, lines: _Lines, grammar: tree_sitter.Language) -> list[_Definition]:
    """The definitions at the top of a text, and those inside definitions that are too long for one piece."""
    top: list[_Definition] = []
    if (tree := _parsed(text.encode("utf-8", "replace"), grammar)) is None:
        return top
    # Each entry is a node and the list for its definitions. A loop, because generated code nests too deep to recurse.
    todo: list[tuple[tree_sitter.Node, list[_Definition], int]] = [(tree.root_node, top, 0)]
    while todo:
        parent, found, wrapped = todo.pop()
        wraps = parent.type in _WRAPPERS
        first: int | None = wrapped if wraps else None
        before = -1
        for node in parent.children:
            begin, end = node.start_point.row, _last_row(node)
            if first is None or (before + 1 < begin and not wraps):
                first = begin
            if any(word in node.type for word in _LEADING):
                # The comment on a definition is right above it.
                before = end
                continue
            into = found
            if node.is_named and node.type in _DEFINITIONS and (name := _name(node)):
                definition = _Definition(first, end, name)
                found.append(definition)
                into = definition.inside
                if lines.size(first, min(end, lines.count - 1)) <= LONGEST:
                    first = None
                    continue
            if end > begin:
                todo.append((node, into, first))
            first = None
    return _in_order(top)


def _parsed(content: bytes, grammar: tree_sitter.Language) -> tree_sitter.Tree | None:
    """The tree of a text, or None if the parser needs too many steps."""
    steps = 0

    def has_had_enough(_offset: int, _error: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > _FEWEST_STEPS + len(content) // _BYTES_A_STEP or cancel_requested()

    # The parser holds the interpreter's lock, except while it reads: a few kilobytes take it a millisecond.
    def read(offset: int, _point: tree_sitter.Point) -> bytes:
        return content[offset : offset + _READ_AT_ONCE]

    try:
        return tree_sitter.Parser(grammar).parse(read, progress_callback=has_had_enough)
    except ValueError:
        return None


def _in_order(definitions: list[_Definition]) -> list[_Definition]:
    todo = [definitions]
    while todo:
        some = todo.pop()
        some.sort(key=lambda one: (one.first, -one.last))
        todo += (one.inside for one in some)
    return definitions


def _last_row(node: tree_sitter.Node) -> int:
    end = node.end_point
    return end.row - (end.column == 0 and end.row > node.start_point.row)


def _name(node: tree_sitter.Node) -> str:
    """The name that a node defines; empty if there is none."""
    named: tree_sitter.Node | None = node
    if node.type == "section":
        named = node.named_children[0].child_by_field_name("heading_content") if node.named_children else None
    elif node.type in {"lexical_declaration", "type_declaration"}:
        named = node.named_children[0] if node.named_children else None
    for _ in range(8):
        if named is None:
            return ""
        inner = (
            named.child_by_field_name("name")
            or named.child_by_field_name("declarator")
            or (named.child_by_field_name("type") if named.type == "impl_item" else None)
        )
        if inner is None:
            break
        named = inner
    if named is None or named is node or named.text is None:
        return ""
    return " ".join(named.text.decode("utf-8", "replace").split())[:_LONGEST_SYMBOL]
