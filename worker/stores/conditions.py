"""Conditions for rows of the index, made from values: a user's text is never read as a filter."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

from worker.stores.chunks import DocumentKind
from worker.stores.lance import lance

if TYPE_CHECKING:
    from lancedb.expr import Expr


def equals(column: str, value: str) -> Expr:
    """The column has this value."""
    expr = lance("lancedb.expr")
    found: Expr = expr.col(column) == expr.lit(value)
    return found


def among(column: str, values: Iterable[str]) -> Expr:
    """The column has one of these values."""
    found: Expr = lance("lancedb.expr").col(column).isin(list(values))
    return found


def all_of(*conditions: Expr) -> Expr:
    """All of these conditions are met. Pass at least one."""
    return reduce(and_, conditions)


def any_of(conditions: Iterable[Expr]) -> Expr:
    """At least one of these conditions is met. Pass at least one."""
    return reduce(or_, conditions)


def is_document(kind: DocumentKind, name: str) -> Expr:
    """The row belongs to this document."""
    return all_of(equals("kind", kind), equals("path", name))
