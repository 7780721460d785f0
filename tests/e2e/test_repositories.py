"""Repositories, from the command line to real workers and back."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_trees import write
from tests.support.project import WORKER, Project
from tests.support.waiting import wait_until
from worker.history.events import State
from worker.history.filters import EventFilter
from worker.history.query import read_events

MANY = 60
SO_MANY_MORE = 200
"""That it takes seconds to store them: time enough to kill who does it."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose syncs store a file at a time."""
    made = Project(tmp_path / "project", WORKER_SYNC_BATCH="1", WORKER_LEASE="1s")
    yield made
    made.down()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of small files."""
    return write(
        tmp_path / "shop",
        {f"part{number}/code.py": f"def charge_{number}():\n    return {number}\n" for number in range(MANY)},
    )


def shown(project: Project, name: str = "shop") -> dict[str, Any]:
    found: dict[str, Any] = project.json("repositories", "show", name)
    return found


def test_a_repository_is_added_synced_found_and_removed(project: Project, tree: Path) -> None:
    """With its progress in the history, and a message that has nothing to do skipped."""
    write(tree, {"binary": b"\0"})
    assert project.json("repositories", "add", str(tree)) == {"name": "shop", "path": str(tree)}
    with project.background(WORKER, "up"):
        for expected in (State.COMPLETED, State.SKIPPED):
            [sent] = project.json("repositories", "sync")["repositories"]
            last = project.ended(sent["message_id"])[-1]
            assert (last.event, last.subject) == (f"sync_repository.{expected}", {"repository": "shop"})
            [entry] = project.json("audit", "--limit", "1")["actions"]
            assert (entry["action"], entry["target"], entry["ids"]) == ("sync", "shop", [sent["message_id"]])
    assert last.text.startswith("unchanged")
    progress = read_events(project.client, EventFilter(state=State.PROGRESS), 100)
    assert all(event.total == MANY + 1 and event.done is not None for event in progress)
    assert shown(project)["files"] == shown(project)["chunks"] == MANY
    assert shown(project)["left_out"] == {"binary": 1}
    assert "100%" in project.worker("repositories", "show", "shop").stdout
    hit = project.json("recall", "charge_17", "--repository", "shop", "--limit", "1")["hits"][0]
    assert (hit["path"], hit["symbol"], hit["changed"]) == ("part17/code.py", "charge_17", False)
    project.worker("repositories", "remove", "shop")
    assert project.json("repositories", "list") == {"repositories": []}
    assert project.json("recall", "charge_17")["hits"] == []


def test_a_folder_that_is_not_there_is_a_dead_letter(project: Project, tree: Path) -> None:
    """At once: a retry would find no more."""
    message_id = project.enqueue("sync_repository", "/nowhere/at/all")
    with project.background(WORKER, "up"):
        wait_until(lambda: project.dead_letters() == [message_id])
    [*_, last] = project.events(message_id)
    assert last.error is not None
    assert "worker repositories add" in last.error.text


def stored(project: Project) -> bool:
    """Whether the newest progress tells of stored files."""
    told = read_events(project.client, EventFilter(state=State.PROGRESS), 1)
    return bool(told) and (told[0].done or 0) > 0


@pytest.mark.clock  # it kills in the middle, which a machine with much else to do may miss
def test_a_killed_worker_is_followed_by_one_that_goes_on(project: Project, tree: Path) -> None:
    """What was stored is not stored again, and there is one sync at a time, however many messages."""
    # Small batches, so that many are still to come when the first progress is told, a second after the start.
    project.environment |= {"WORKER_REPOSITORY_ROOTS": str(tree.parent), "WORKER_SYNC_BATCH": "4"}
    write(tree, {f"more/part{number}.py": f"def more_{number}(): ...\n" for number in range(SO_MANY_MORE)})
    with project.background(WORKER, "up"):
        first, second = (project.enqueue("sync_repository", str(tree)) for _ in range(2))
        wait_until(lambda: stored(project))
        for pid, command in project.processes().items():
            if "dramatiq" in command:
                os.kill(pid, signal.SIGKILL)
    with project.background(WORKER, "up"):
        ends = [project.ended(message_id)[-1] for message_id in (first, second)]
    assert sorted(str(event.state) for event in ends) == ["completed", "skipped"]
    [completed] = [event for event in ends if event.state is State.COMPLETED]
    assert int(completed.text.split()[0]) < MANY + SO_MANY_MORE
    assert shown(project)["files"] == MANY + SO_MANY_MORE


def test_of_several_syncs_in_the_own_process_each_is_told(project: Project, tree: Path) -> None:
    """One that fails costs only itself, and the exit code says that there was one; none at all is told, too."""
    assert "worker repositories add" in project.worker("repositories", "sync", "--here").stderr
    for name in ("a", "b", "c"):
        folder = write(tree / name, {"one.py": f"def of_{name}(): ...\n"})
        project.worker("repositories", "add", str(folder))
    shutil.rmtree(tree / "b")
    done = project.worker("repositories", "sync", "--here", code=1)
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        "a: 1 file stored in 1 chunk",
        f"b: {tree / 'b'} is not there",
        "c: 1 file stored in 1 chunk",
    ]
    assert "1 of 3 were not synced: b" in done.stderr
    told = json.loads(project.worker("repositories", "sync", "--here", "--json", code=1).stdout)
    assert [one["result"] for one in told["repositories"]] == ["unchanged", f"{tree / 'b'} is not there", "unchanged"]
    assert {tuple(one) for one in told["repositories"]} == {("name", "message_id", "result")}


def test_a_sync_needs_no_workers(project: Project, tree: Path) -> None:
    """In the command's own process; complaints are one line."""
    project.worker("repositories", "add", str(tree), "--name", "mine", "--include", "part1/")
    [synced] = project.json("repositories", "sync", "mine", "--here")["repositories"]
    assert synced["result"].startswith("1 file stored in 1 chunk")
    assert project.worker("repositories", "sync", "--here").stdout == "mine: unchanged\n"
    entries = project.json("audit")["actions"]
    assert [(one["action"], one["target"], one["count"]) for one in entries] == [("sync", "mine", 0)] * 2
    for words in (("sync", "nobody"), ("show", "nobody"), ("remove", "nobody"), ("add", "/nowhere")):
        assert len(project.worker("repositories", *words, code=2).stderr.splitlines()) == 1
