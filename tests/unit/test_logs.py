"""Log lines of attempts, as the handler of a worker process writes them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from dramatiq.cli import LOGFORMAT

from tests.support.logs import logging_put_back
from worker import Fatal, RetryLater, actor
from worker.broker.process import is_dramatiqs
from worker.ground.logs import configure_logs, configure_logs_in_place_of, get_logger
from worker.testing import StubWorker


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What this process logs, in JSON or the form that the test names."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    with logging_put_back():
        configure_logs("info", getattr(request, "param", "json"))
        yield text


def test_an_attempt_that_asks_for_a_later_time_logs_no_error(stub: StubWorker, written: io.StringIO) -> None:
    """A line of the level INFO says so, without a traceback; where only warnings are logged, nothing does."""

    @actor(max_retries=1)
    async def busy() -> None:
        raise RetryLater(0, "the model is busy")

    busy.send()
    stub.join()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    told = [line for line in lines if "later time" in line["event"]]
    assert [line["level"] for line in told] == ["info"] * 2
    assert "the model is busy" in told[0]["event"]
    assert {line["level"] for line in lines if line not in told} <= {"info", "warning"}
    assert "exception" not in told[0]
    logging.getLogger().setLevel(logging.WARNING)
    written.truncate(0)
    busy.send()
    stub.join()
    assert "later time" not in written.getvalue()


def test_an_attempt_that_fails_for_good_logs_an_error_of_one_line(stub: StubWorker, written: io.StringIO) -> None:
    """The service raised it on purpose: its traceback says nothing more."""

    @actor
    async def never() -> None:
        raise Fatal("no such address")

    never.send()
    stub.join()
    told = [line for line in map(json.loads, written.getvalue().splitlines()) if "no such address" in line["event"]]
    assert {line["level"] for line in told} == {"error", "warning"}
    assert not [line for line in told if "exception" in line]


@pytest.mark.parametrize("written", ["json", "console"], indirect=True)
def test_no_value_of_a_line_shows_a_secret(written: io.StringIO) -> None:
    """Whatever bears a telling name, an error, what is within a value, and a traceback; the rest is as it was."""
    logger, url = get_logger("a"), "redis://me:hunter2@db/0"
    logger.info("named", password="hunter2", token=b"hunter2", attempts=3, is_new=True)
    logger.info("held", settings={"url": url, "api_key": "hunter2", "hosts": ["a", "password=hunter2"]}, at=(1, url))
    logger.info("an error", error=ConnectionError(f"no answer from {url}"))
    logging.getLogger("b").info("theirs", extra={"password": "hunter2", "settings": {"secret": "hunter2"}})
    try:
        raise ConnectionError(f"no answer from {url}")
    except ConnectionError:
        logger.exception("raised")
        logging.getLogger("b").exception("raised")
    said = written.getvalue()
    assert "hunter2" not in said
    assert said.count("redis://me:***@db/0") >= 5
    assert said.count("Traceback (most recent call last)") == 2
    if said.startswith("{"):
        named, held, *_ = [json.loads(line) for line in said.splitlines()]
        assert (named["attempts"], named["is_new"], named["token"]) == (3, True, "***")
        assert held["settings"]["hosts"] == ["a", "password=***"]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger without a handler, and a structlog that nobody has configured."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with logging_put_back():
        structlog.reset_defaults()
        found = logging.getLogger()
        found.handlers[:] = []
        yield found


def boot() -> None:
    """A worker process begins, as far as its logging is concerned."""
    configure_logs_in_place_of(is_dramatiqs, "info", "json")


def to_text(text: io.StringIO, form: str = "%(levelname)s %(name)s %(message)s") -> logging.Handler:
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter(form))
    return handler


def test_our_handler_takes_the_place_of_dramatiqs_and_leaves_the_others(root: logging.Logger) -> None:
    """The handler that a program has added gets each line too, as a text that can be read, without secrets."""
    text = io.StringIO()
    theirs = to_text(text)
    root.handlers[:] = [to_text(io.StringIO(), LOGFORMAT), theirs]
    boot()
    assert theirs in root.handlers
    assert [type(one).__module__ for one in root.handlers if one is not theirs] == ["worker.ground.logs"]
    get_logger("worker.a").warning("no answer", url="redis://me:hunter2@db/0", tries=3)
    assert "WARNING worker.a no answer url=redis://me:***@db/0 tries=3\n" in text.getvalue()


def test_a_worker_process_leaves_a_programs_logging_alone(root: logging.Logger) -> None:
    """With `--skip-logging`, or where the program has handlers of its own, also the level and structlog stay."""
    text = io.StringIO()
    own = to_text(text)
    root.handlers[:], level = [own], root.level
    boot()
    assert (root.handlers, root.level) == ([own], level)
    assert not structlog.is_configured()
    try:
        raise ValueError("odd")
    except ValueError:
        get_logger("worker.a").exception("it failed", id=7)
    said = text.getvalue()
    assert "ERROR worker.a it failed id=7\n" in said
    assert said.count("ValueError: odd") == 1
    root.handlers[:] = []
    boot()
    assert root.handlers == []


def test_a_structlog_that_a_program_has_configured_stays(root: logging.Logger) -> None:
    """A worker process has its own handler then, and the program's loggers go where they went."""
    entries: list[Any] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        entries.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    root.handlers[:] = [to_text(io.StringIO(), LOGFORMAT)]
    boot()
    get_logger("worker.a").warning("ours")
    structlog.get_logger().info("theirs", number=1)
    assert entries[-2:] == [{"event": "ours"}, {"event": "theirs", "number": 1}]
