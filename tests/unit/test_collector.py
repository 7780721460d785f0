"""A worker process asks the collector less often."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from worker.broker.process import spare_the_collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_process_with_pythons_own_threshold_gets_a_higher_one() -> None:
    """And the program itself is looked at no more."""
    gc.set_threshold(700, 10, 10)
    spare_the_collector()
    assert gc.get_threshold() == (10_000, 10, 10)
    assert gc.get_freeze_count() > 0


def test_a_program_that_has_set_a_threshold_keeps_it() -> None:
    """Also one that has turned the collector off by it."""
    for own in (50_000, 0):
        gc.set_threshold(own, 5, 5)
        spare_the_collector()
        assert gc.get_threshold() == (own, 5, 5)
