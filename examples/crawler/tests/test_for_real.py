"""The whole way, with the site, real workers and the embedded Valkey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import crawler
import worker

SCRIPTS = Path(sysconfig.get_path("scripts"))
PAGES = 120
"""Of these, numbers 13 and 113 are missing, and number 50 is busy at first."""
DEADLINE = 60.0
"""Seconds that a command may take."""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a project of its own; at the end its server is down, whatever happened."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    variables = inherited | {"WORKER_ACTORS": "crawler.actors", "WORKER_DATA_DIR": str(tmp_path / "data")}
    yield variables
    run(tmp_path, variables, SCRIPTS / "worker", "down")


def run(folder: Path, environment: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in the project."""
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def test_the_package_is_the_installed_one() -> None:
    """What is tested here is what a user would install."""
    for module in (worker, crawler):
        assert Path(str(module.__file__)).is_relative_to(sys.prefix)


def test_every_page_is_fetched_both_ways(tmp_path: Path, environment: dict[str, str]) -> None:
    """Each way ends with every page accounted for, in the table and in the history."""
    ran = run(tmp_path, environment, sys.executable, "-m", "crawler", "--pages", str(PAGES))
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    counts = [line.split()[-3:] for line in ran.stdout.splitlines()[1:]]
    assert counts == [[str(PAGES - 2), "2", "0"]] * 2, ran.stdout

    shown = run(tmp_path, environment, SCRIPTS / "worker", "events", "--json", "--state", "snoozed")
    assert shown.returncode == 0, shown.stderr
    snoozed = [json.loads(line)["event"] for line in shown.stdout.splitlines()]
    assert sorted(snoozed) == ["fetch_page.snoozed", "fetch_page_on_thread.snoozed"]
