"""The bridge's whole contract once more, on the loop that is used where private parts of asyncio are missing."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop

from tests.support.attempts import short_patience
from tests.support.loops import use_loops_of
from tests.unit import test_bridge, test_interrupts
from worker.bridge import stop_shared_loop
from worker.loops import fresh_loop

__all__ = ["short_patience"]

_own_shared_loop = test_bridge._own_shared_loop

for _module in (test_bridge, test_interrupts):
    _tests = {name: test for name, test in vars(_module).items() if name.startswith("test_")}
    assert not _tests.keys() & globals().keys()
    globals().update(_tests)


@pytest.fixture(autouse=True)
def _standard_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `_is_possible` has found a part missing."""
    stop_shared_loop()
    monkeypatch.setattr(fresh_loop, "_possible", False)
    monkeypatch.setattr(fresh_loop, "_uvloop", lambda: None)


@test_bridge.BOTH
def test_it_is_the_standard_loop_that_these_tests_run_on(run: test_bridge.Run) -> None:
    """Else they would prove nothing."""

    async def kind() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    assert run(kind) is asyncio.SelectorEventLoop
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(fresh_loop, "_possible", True)
    stop_shared_loop()
    assert run(kind) is fresh_loop.FreshLoop
    monkeypatch.undo()


def test_the_programs_kind_of_loop_is_told_without_what_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours where nothing was set, and uvloop's where the program has set it; Python 3.14 warns of the question."""

    def warns() -> None:
        raise DeprecationWarning

    monkeypatch.setattr(fresh_loop, "_possible", True)
    monkeypatch.setattr(asyncio, "get_event_loop_policy", warns)
    try:
        for kind, made in (("asyncio", fresh_loop.FreshLoop), ("uvloop", uvloop.Loop)):
            use_loops_of(kind)
            loop = fresh_loop.new_loop()
            loop.close()
            assert isinstance(loop, made)
    finally:
        use_loops_of("asyncio")


@pytest.mark.parametrize("name", [*fresh_loop._NEEDED, *fresh_loop._NEEDED_OF_A_LOOP])
def test_a_missing_part_of_asyncio_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the public way is taken."""

    class Without(asyncio.SelectorEventLoop):
        def __getattribute__(self, asked: str) -> object:
            # Only the question whether there is such a part: closing the loop uses it.
            if asked == name and sys._getframe(1).f_globals["__name__"] == fresh_loop.__name__:
                raise AttributeError(asked)
            return super().__getattribute__(asked)

    class Kind(type(asyncio.SelectorEventLoop)):  # type: ignore[misc]
        def __getattribute__(cls, asked: str) -> object:
            if asked == name:
                raise AttributeError(asked)
            return super().__getattribute__(asked)

    missing = Kind("Missing", (Without,), {}) if name in fresh_loop._NEEDED else Without
    monkeypatch.setattr(asyncio, "SelectorEventLoop", missing)
    assert not fresh_loop._is_possible()
