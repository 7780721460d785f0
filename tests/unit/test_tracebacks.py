"""Tracebacks: what a person reads begins with the program's own code, and what is kept is whole and bounded."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable

import dramatiq
import pytest

from tests.support.logs import logging_put_back
from worker import ProcessingStatusContext, actor, run_async_in_new_loop, run_in_thread_pool
from worker.ground.logs import configure_logs
from worker.ground.tracebacks import bounded, from_the_programs_code
from worker.history.events import MAX_TRACEBACK, TAKEN_TRACEBACK, ErrorInfo, State, StatusEvent
from worker.history.lines import from_line, to_line
from worker.testing import StubWorker


def functions(text: str) -> list[str]:
    """The functions of the frames, each part that is left out as a mark."""
    return [
        found[1] or "…"
        for found in re.finditer(r'^[ |]*(?:File ".*", line \d+, in (\S+)|… \d+ frames)', text, re.MULTILINE)
    ]


async def service() -> None:
    await asyncio.sleep(0)
    raise LookupError("no such order")


def blocking() -> None:
    raise LookupError("no such order")


def shared(_: StubWorker) -> None:
    @actor(max_retries=0)
    async def order() -> None:
        await service()

    order.send()


def new(_: StubWorker) -> None:
    @actor(max_retries=0, loop="new")
    async def order() -> None:
        await service()

    order.send()


def sync(_: StubWorker) -> None:
    @actor(max_retries=0)
    def order() -> None:
        blocking()

    order.send()


def explicit(stub: StubWorker) -> None:
    @dramatiq.actor(max_retries=0, broker=stub.broker)
    def order() -> None:
        with ProcessingStatusContext("order", ""):
            run_async_in_new_loop(service())

    order.send()


def pooled(_: StubWorker) -> None:
    @actor(max_retries=0)
    async def order() -> None:
        await run_in_thread_pool(blocking)

    order.send()


@pytest.mark.parametrize(
    ("send", "read"),
    [
        (shared, ["order", "service"]),
        (new, ["order", "service"]),
        (sync, ["order", "blocking"]),
        (explicit, ["order", "…", "service"]),
        (pooled, ["order", "…", "blocking"]),
    ],
)
def test_what_a_person_reads_begins_with_the_actor(
    stub: StubWorker, send: Callable[[StubWorker], None], read: list[str]
) -> None:
    """And names what lies between two parts of the program in a line; what is kept has every frame."""
    send(stub)
    stub.join()
    [error] = [event.error for event in stub.events if event.error is not None]
    shown = from_the_programs_code(error.traceback)
    assert functions(shown) == read
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("LookupError: no such order\n")
    assert len(functions(error.traceback)) > len(read)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(("level", "is_whole"), [("info", False), ("debug", True)])
def test_a_log_line_of_a_failed_attempt_begins_with_the_actor(
    stub: StubWorker, monkeypatch: pytest.MonkeyPatch, form: str, level: str, is_whole: bool
) -> None:
    """At the level `debug` the traceback is whole."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    with logging_put_back():
        configure_logs(level, form)
        shared(stub)
        stub.join()
    said = text.getvalue()
    if form == "json":
        [said] = [line["exception"] for line in map(json.loads, said.splitlines()) if "exception" in line]
    found = functions(said)
    assert found[-2:] == ["order", "service"]
    assert (len(found) > 2) == is_whole


def test_an_error_that_arose_in_the_package_keeps_its_frames() -> None:
    """Those show where; so do those of a loop of ours that calls no program's code."""
    ours = (
        'Traceback (most recent call last):\n  File "/x/worker/attempts/run.py", line 1, in run\n    ours()\nKeyError\n'
    )
    assert from_the_programs_code(ours) == ours
    from_server = ours.replace("attempts/run.py", "broker/heartbeat.py").replace(
        "KeyError", '  File "/x/redis/client.py", line 2, in call\nKeyError'
    )
    assert from_the_programs_code(from_server) == from_server


def test_each_cause_and_each_error_of_a_group_begins_with_the_programs_code(stub: StubWorker) -> None:
    """The margins of a group stay."""

    @actor(max_retries=0)
    async def group() -> None:
        try:
            run_off = await asyncio.gather(service(), return_exceptions=True)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(service())
        except ExceptionGroup as error:
            raise RuntimeError(f"{len(run_off)} failed") from error

    group.send()
    stub.join()
    [error] = [event.error for event in stub.events if event.error is not None]
    shown = from_the_programs_code(error.traceback)
    assert functions(shown)[-1] == "group"
    assert "loop_body" not in shown
    assert "\n    | Traceback (most recent call last):" in shown
    assert [line for line in error.traceback.splitlines() if "rror: " in line] == [
        line for line in shown.splitlines() if "rror: " in line
    ]


def failing(text: str) -> LookupError:
    """An error that a function has raised, with another of the same text as its cause, and a note."""
    try:
        try:
            raise ValueError(text)
        except ValueError as cause:
            error = LookupError(text)
            error.add_note(text)
            raise error from cause
    except LookupError as raised:
        return raised


def test_a_long_text_never_pushes_out_the_frames() -> None:
    """Neither the error's own, nor that of a cause, nor a note; each text keeps its begin."""
    error = failing("no such order: " + "x" * 100_000)
    info = ErrorInfo.of(error)
    assert len(info.traceback) < MAX_TRACEBACK
    assert functions(info.traceback) == ["failing", "failing"]
    assert info.traceback.count("no such order: xxx") == 3


def test_no_half_of_a_secret_is_left_where_a_long_text_is_cut() -> None:
    """It is masked before, at whatever place it stands."""
    for before in range(900, 1_100, 7):
        info = ErrorInfo.of(failing("x" * before + " redis://me:hunter2@db/0" + "y" * 100_000))
        assert "hun" not in info.traceback


def test_a_deep_traceback_keeps_its_begin_and_its_end() -> None:
    """The frames in its middle make room."""
    deep = "".join(f'  File "a.py", line {number}, in f{number}\n    call()\n' for number in range(2_000))
    text = f"Traceback (most recent call last):\n{deep}KeyError: 1\n"
    kept = bounded(bounded(text, TAKEN_TRACEBACK), MAX_TRACEBACK)
    assert len(kept) <= MAX_TRACEBACK
    assert functions(kept)[0] == "f0"
    assert functions(kept)[-1] == "f1999"
    assert kept.count("\n  …\n") == 1
    assert bounded("short", 10) == "short"
    assert len(bounded("z" * 100, 50)) == 50


def test_the_history_keeps_the_bounded_traceback() -> None:
    """As it is stored and read again."""
    info = ErrorInfo.of(failing("y" * 50_000))
    event = StatusEvent(
        event="a.failed", state=State.FAILED, id="m:1.end", message_id="m", actor="a", queue="q", attempt=1, error=info
    )
    found = from_line(to_line(event), "m", "a", "q").error
    assert found is not None
    assert functions(found.traceback) == ["failing", "failing"]
