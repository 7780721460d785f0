"""Repeats in groups and pipelines get ids of their own."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.composition import group, pipeline

from worker import actor
from worker.testing import stub_worker


@pytest.fixture
def one() -> Iterator[dramatiq.Actor[[int], None]]:
    """An actor on a broker without a server."""
    with stub_worker() as worker:

        @actor
        def one(number: int) -> None: ...

        yield one
        worker.broker.actors.clear()


def test_repeats_in_a_group_get_ids_of_their_own(one: dramatiq.Actor[[int], None]) -> None:
    """The first keeps its id, and one that is there once keeps it too."""
    repeated, single = one.message(1), one.message(2)
    made = group([repeated, repeated, single, repeated])
    ids = [child.message_id for child in made.children]
    assert len(set(ids)) == 4
    assert (ids[0], ids[2]) == (repeated.message_id, single.message_id)
    assert [child.args for child in made.children] == [(1,), (1,), (2,), (1,)]
    assert group(iter(made.children)).children == made.children


def test_repeats_in_a_pipeline_get_ids_of_their_own(one: dramatiq.Actor[[int], None]) -> None:
    """Each pipes to the next by the id that it has."""
    message = one.message(1)
    for made in (pipeline([message, message, message]), message | message | message, pipeline([message] * 2) | message):
        ids = [each.message_id for each in made.messages]
        assert len(set(ids)) == 3
        assert [each.options["pipe_target"]["message_id"] for each in made.messages[:-1]] == ids[1:]
        assert made.messages[0].options["pipe_target"]["options"]["pipe_target"]["message_id"] == ids[2]


def test_repeats_are_told_apart_however_deep_they_are(one: dramatiq.Actor[[int], None]) -> None:
    """A pipeline or a group that is there twice, and a message that is also in a pipeline."""
    message = one.message(1)
    line, inner = one.message(2) | one.message(3), group([one.message(4)])
    inner.add_completion_callback(one.message(5))
    made = group([line, line, message, inner, inner, message | one.message(6)])
    ids = list(_ids(made))
    assert len(set(ids)) == len(ids) == 9
    assert made.children[0] is line
    assert made.children[4].completion_callbacks == inner.completion_callbacks


def test_a_callback_that_is_added_twice_runs_twice(one: dramatiq.Actor[[int], None]) -> None:
    """As on Dramatiq's own broker."""
    made = group([one.message(1)])
    callback = one.message(2)
    made.add_completion_callback(callback)
    made.add_completion_callback(callback)
    first, second = (each["message_id"] for each in made.completion_callbacks)
    assert first == callback.message_id != second


def _ids(child: dramatiq.Message[None] | pipeline | group) -> Iterator[str]:
    if isinstance(child, dramatiq.Message):
        yield child.message_id
    else:
        for each in child.children if isinstance(child, group) else child.messages:
            yield from _ids(each)
