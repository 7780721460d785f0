"""The kind of the shared loop: what `WORKER_LOOP` says, unless the program has chosen another."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import uvloop

from tests.support.loops import loops_of_the_settings
from worker.errors import ConfigurationError
from worker.loops import fresh_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force


@pytest.fixture(autouse=True)
def _own_settings(clean_environment: None) -> Iterator[None]:
    before = Settings.in_force()
    with loops_of_the_settings():
        yield
    put_in_force(before)


@pytest.mark.parametrize(
    ("wanted", "kind"), [("auto", uvloop.Loop), ("uvloop", uvloop.Loop), ("asyncio", fresh_loop.FreshLoop)]
)
def test_the_long_lived_loop_is_of_the_wanted_kind(
    wanted: str, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new loop for one call stays the cheap one."""
    monkeypatch.setenv("WORKER_LOOP", wanted)
    put_in_force(Settings())
    for loop, expected in (
        (fresh_loop.new_loop(long_lived=True), kind),
        (fresh_loop.new_loop(), fresh_loop.FreshLoop),
    ):
        assert isinstance(loop, expected)
        fresh_loop.close_loop(loop)


@pytest.mark.parametrize("wanted", ["auto", "uvloop"])
def test_without_uvloop_it_is_asyncios_unless_uvloop_is_demanded(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The complaint says what to install."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setenv("WORKER_LOOP", wanted)
    put_in_force(Settings())
    if wanted == "uvloop":
        with pytest.raises(ConfigurationError, match=r"dramatiq-bridge\[uvloop\]"):
            fresh_loop.new_loop(long_lived=True)
        return
    loop = fresh_loop.new_loop(long_lived=True)
    assert isinstance(loop, fresh_loop.FreshLoop)
    fresh_loop.close_loop(loop)
