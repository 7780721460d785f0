"""The bridge's whole contract once more, on the loop that is used where private parts of asyncio are missing."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.unit import test_bridge, test_interrupts
from worker import fresh_loop
from worker.bridge import stop_shared_loop

# Starts a process of its own, which the fixture below does not reach: it has its own test here.
_ELSEWHERE = "test_an_interrupt_of_the_calling_thread_cancels_the_coroutine_and_comes_out_itself"

_own_shared_loop = test_bridge._own_shared_loop
short_patience = test_interrupts.short_patience

for _module in (test_bridge, test_interrupts):
    _tests = {name: test for name, test in vars(_module).items() if name.startswith("test_") and name != _ELSEWHERE}
    assert not _tests.keys() & globals().keys()
    globals().update(_tests)


@pytest.fixture(autouse=True)
def _standard_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `_is_possible` has found a part missing."""
    stop_shared_loop()
    monkeypatch.setattr(fresh_loop, "_possible", False)


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


def test_ctrl_c_cancels_the_coroutine_and_comes_out_itself() -> None:
    """`finally` blocks run, and KeyboardInterrupt leaves the call."""
    script = (
        "import asyncio, os, signal\n"
        "from worker import fresh_loop, run_async_in_new_loop\n"
        "fresh_loop._possible = False\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)\n"
        "    try:\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        await asyncio.sleep(0)\n"
        "        print('cleaned up', flush=True)\n"
        "try:\n"
        "    run_async_in_new_loop(main())\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    ended = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr) == (b"cleaned up\ninterrupted\n", b"")
