"""Gives repeats in Dramatiq's groups and pipelines ids of their own, when these are made.

A message's id is its place on the server: of two with one id, only one would run. Groups and pipelines without repeats
stay as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.composition import group, pipeline
from dramatiq.message import generate_unique_id

_Child = dramatiq.Message[Any] | pipeline | group


def tell_repeats_apart() -> None:
    """Makes Dramatiq's `group` and `pipeline` do so in this process; a second call changes nothing."""
    for kind in (group, pipeline):
        if not hasattr(kind.__init__, "__wrapped__"):
            kind.__init__ = _with_own_ids(kind.__init__)  # type: ignore[method-assign]
    if not hasattr(group.add_completion_callback, "__wrapped__"):
        group.add_completion_callback = _with_own_id(group.add_completion_callback)  # type: ignore[method-assign]


def _with_own_ids(make: Any) -> Any:  # noqa: ANN401 - a method of Dramatiq's
    @functools.wraps(make)
    def made(self: object, children: Iterable[_Child], **options: Any) -> None:  # noqa: ANN401
        known: set[str] = set()
        make(self, [_of_its_own(child, known) for child in children], **options)

    return made


def _with_own_id(add: Any) -> Any:  # noqa: ANN401 - a method of Dramatiq's
    @functools.wraps(add)
    def added(self: group, message: dramatiq.Message[Any]) -> None:
        add(self, _of_its_own(message, {one["message_id"] for one in self.completion_callbacks}))

    return added


def _of_its_own(child: Any, known: set[str]) -> Any:  # noqa: ANN401 - a message, a pipeline, or a group
    """The child, or if an id of it is known, a copy with new ids; adds its ids to the known."""
    if isinstance(child, pipeline):
        messages = [_of_its_own(one, known) for one in child.messages]
        is_same = all(one is other for one, other in zip(messages, child.messages, strict=True))
        return child if is_same else pipeline(messages, broker=child.broker)
    if isinstance(child, group):
        children = [_of_its_own(one, known) for one in child.children]
        if all(one is other for one, other in zip(children, child.children, strict=True)):
            return child
        copied = group(children, broker=child.broker)
        copied.completion_callbacks = list(child.completion_callbacks)
        return copied
    if child.message_id in known:
        child = child.copy(message_id=generate_unique_id())
    known.add(child.message_id)
    return child
