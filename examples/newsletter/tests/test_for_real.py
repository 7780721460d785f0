"""The whole way, with real workers and the embedded Valkey, where the extras of dramatiq-bridge are not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import newsletter
import worker
import worker.errors
import worker.testing

SCRIPTS = Path(sysconfig.get_path("scripts"))
DEADLINE = 30.0
"""Seconds that anything here may take."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a project of its own: its data and its outbox are in the test's folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    return inherited | {
        "WORKER_ACTORS": "newsletter.actors",
        "WORKER_DATA_DIR": str(tmp_path / "data"),
        "NEWSLETTER_OUTBOX": str(tmp_path / "outbox"),
    }


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Iterator[Command]:
    """Runs `worker …` in the project; at the end the embedded server is down, whatever happened."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / "worker", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    yield run
    run("down")


@contextmanager
def workers(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `dramatiq newsletter.actors`; its output goes to `dramatiq.log`."""
    with (
        (folder / "dramatiq.log").open("wb") as log,
        subprocess.Popen(
            [SCRIPTS / "dramatiq", "newsletter.actors", "--processes", "2", "--threads", "4"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def read_events(command: Command) -> list[dict[str, Any]]:
    """The history, oldest event first."""
    shown = command("events", "--json")
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_the_package_is_the_installed_one_and_its_extras_are_absent() -> None:
    for module in (worker, newsletter):
        assert Path(str(module.__file__)).is_relative_to(sys.prefix)
    assert [name for name in ("av", "sqlalchemy", "openai") if importlib.util.find_spec(name)] == []


def test_the_public_names_are_there() -> None:
    # What `from worker import *` takes.
    assert [name for name in worker.__all__ if not hasattr(worker, name)] == []
    assert {"actor", "create_broker", "ProcessingStatusContext", "run_async_in_new_loop"} <= set(worker.__all__)
    assert issubclass(worker.errors.NoContentFound, worker.errors.WorkerError)
    assert callable(worker.testing.stub_worker)


@pytest.mark.parametrize("words", [["events", "--help"], ["enqueue", "--help"], ["config"]])
def test_the_command_line_needs_no_extra(command: Command, words: list[str]) -> None:
    ran = command(*words)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_what_needs_an_extra_names_it_in_a_line(command: Command) -> None:
    ran = command("demo")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "pip install 'dramatiq-bridge[tasks]'" in ran.stderr


def test_a_message_goes_all_the_way(tmp_path: Path, environment: dict[str, str], command: Command) -> None:
    with workers(tmp_path, environment) as process:
        enqueued = command("enqueue", "send_newsletter", "issue-1", "ada@example.org", "--json")
        assert enqueued.returncode == 0, enqueued.stderr
        message_id = json.loads(enqueued.stdout)["message_id"]
        deadline = time.monotonic() + DEADLINE
        while "completed" not in [event["state"] for event in read_events(command)]:
            assert process.poll() is None, (tmp_path / "dramatiq.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "dramatiq.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0

    account = [(event["event"], event["message_id"], event["attempt"]) for event in read_events(command)]
    assert account == [
        ("send_newsletter.started", message_id, 1),
        ("send_newsletter.completed", message_id, 1),
    ]
    assert [file.name for file in (tmp_path / "outbox").iterdir()] == ["issue-1.ada@example.org.eml"]
    assert "Traceback" not in (tmp_path / "dramatiq.log").read_text()
    assert json.loads(command("down", "--json").stdout) == {"stopped": True}
    assert json.loads(command("down", "--json").stdout) == {"stopped": False}
