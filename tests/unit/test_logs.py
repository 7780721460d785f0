"""Log lines of attempts, as the handler of a worker process writes them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tests.support.logs import logging_put_back
from worker import Fatal, RetryLater, actor
from worker.ground.logs import configure_logs, get_logger
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
