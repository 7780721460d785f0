"""Hostile files, names, patterns and questions, as a user meets them: on the command line, over HTTP, in messages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.git_trees import write
from tests.support.project import WORKER, Project
from tests.support.waiting import TIMEOUT, wait_until
from worker.history.events import State

NAMES = ["new\nline.py", "'quoted'.py", '"double".py', "x' OR 1=1 --.py", "\x1b[31m.py", "-rf.py", "*.py", "日本.py"]
QUESTIONS = ["' OR 1=1; DROP TABLE chunks --", '"a" AND (', "text:shop*", "+-~^", "NOT", "*", "\ud800", "\x1b[31m"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with workers, and a repository of hostile files that was synced."""
    folder = tmp_path_factory.mktemp("hostile")
    made = Project(folder / "project")
    tree = write(folder / "shop", {name: f"def zebra_{number}(): ...\n" for number, name in enumerate(NAMES)})
    write(tree, {"latin.py": "é = 1".encode("latin-1"), "large.txt": "x" * 50_000_000, "noise": os.urandom(5000)})
    (tree / "circle").symlink_to(tree)
    (tree / "itself").symlink_to("itself")
    Path(os.fsdecode(os.fsencode(tree) + b"/half\xff.py")).write_text("zebra")
    made.json("repositories", "add", str(tree))
    with made.background(WORKER, "up"):
        [sent] = made.json("repositories", "sync")["repositories"]
        assert made.ended(sent["message_id"])[-1].state is State.COMPLETED
        yield made
    made.down()


@pytest.fixture(scope="module")
def web(project: Project) -> Iterator[httpx.Client]:
    """A client of its `worker web`."""
    with (
        project.background(WORKER, "web", "--json"),
        httpx.Client(base_url=project.served(begun_by="worker"), timeout=TIMEOUT) as client,
    ):
        yield client


def test_hostile_files_are_synced_or_left_out_with_the_reason(project: Project) -> None:
    """None of them harms another."""
    found = project.json("repositories", "show", "shop")
    assert (found["files"], found["errors"], found["sync"]["state"]) == (len(NAMES), 0, "completed")
    left_out = found["left_out"]
    assert (left_out["symbolic link"], left_out["too large"], left_out["name is not UTF-8"]) == (2, 1, 1)
    assert left_out.get("not UTF-8", 0) + left_out.get("binary", 0) == 2


def test_files_with_hostile_names_are_found_by_everyone(project: Project, web: httpx.Client) -> None:
    """As they are called in JSON, and without steering the terminal for people."""
    wanted = set(NAMES)
    by_command = project.json("recall", "zebra", "--limit", "100", "--repository", "shop")
    by_web = web.post("/recall", json={"question": "zebra", "limit": 100, "repository": "shop"}).json()
    for answer in (by_command, by_web):
        assert answer["left_out"] == []
        assert len(answer["hits"]) == len(wanted)
        assert all(hit["changed"] is False for hit in answer["hits"])
    assert {hit["path"] for hit in by_command["hits"]} == wanted
    shown = project.worker("recall", "zebra", "--limit", "100").stdout
    assert "\x1b" not in shown
    assert "x' OR 1=1 --.py" in shown


def test_no_question_is_syntax_to_anyone(project: Project, web: httpx.Client) -> None:
    """It is answered, or is no text and refused in a line."""
    for question in QUESTIONS:
        body = json.dumps({"question": question})
        answer = web.post("/recall", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == (422 if question == "\ud800" else 200), answer.text
        assert "\n" not in answer.json().get("detail", "")
    for argument in (QUESTIONS[0], QUESTIONS[1], "half\udcff"):
        assert json.loads(project.run(WORKER, "recall", "--json", "--", argument).stdout)["left_out"] == []


def complaint(project: Project, *words: str) -> str:
    """What a command that is refused says, besides its log: one line."""
    said = [line for line in project.worker(*words, code=2).stderr.splitlines() if not line.startswith("{")]
    [line] = said
    return line


@pytest.mark.parametrize("name", ["x' OR '1'='1", "half\udcff"])
def test_no_name_of_a_repository_is_sql_to_anyone(project: Project, web: httpx.Client, name: str) -> None:
    """It is one that nobody knows, and said so in a line."""
    assert "no repository" in complaint(project, "recall", "zebra", "--repository", name)
    for word in ("show", "sync", "remove"):
        assert "no repository" in complaint(project, "repositories", word, "--", name)
    body = json.dumps({"question": "zebra", "repository": name})
    answer = web.post("/recall", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "\n" not in answer.json()["detail"]
    assert project.json("repositories", "show", "shop")["files"] == len(NAMES)


@pytest.mark.parametrize("name", ["/nul\0", "/" + "x" * 300])
def test_a_message_with_a_name_that_can_be_none_is_a_dead_letter(project: Project, name: str) -> None:
    """At once, as any folder that is not there."""
    message_id = project.enqueue("sync_repository", json.dumps(name))
    wait_until(lambda: message_id in project.dead_letters())
    assert project.events(message_id)[-1].attempt == 1


@pytest.mark.parametrize(("option", "pattern"), [("--include", "../x"), ("--exclude", "a/../../b")])
def test_a_pattern_that_leads_out_is_one_line(project: Project, tmp_path: Path, option: str, pattern: str) -> None:
    """And nothing is added."""
    said = complaint(project, "repositories", "add", str(tmp_path), f"{option}={pattern}")
    assert f"{option} {pattern!r}" in said
    assert [one["name"] for one in project.json("repositories", "list")["repositories"]] == ["shop"]


def test_a_folder_that_can_be_none_is_one_line(project: Project, tmp_path: Path) -> None:
    """A circle of links, a name that is too long, or no text, or a file."""
    (tmp_path / "itself").symlink_to("itself")
    half = Path(os.fsdecode(os.fsencode(tmp_path) + b"/half\xff"))
    half.mkdir()
    for path in ("/" + "x" * 300, str(half), str(tmp_path / "itself")):
        assert complaint(project, "repositories", "add", path, "--name", "new")


def test_a_question_of_a_megabyte_is_cut_or_refused(project: Project, web: httpx.Client) -> None:
    """On the command line as long as the system takes; over HTTP and in a message it is refused in a line."""
    answer = project.json("recall", "zebra " + "a" * 100_000)
    assert [one["part"] for one in answer["left_out"]] == ["question"]
    assert answer["hits"]
    for question in ("x" * 2**20, "\0" * 2**20, "' OR " * 2**18):
        refused = web.post("/recall", json={"question": question})
        assert refused.status_code == 413
        assert "\n" not in refused.json()["detail"]


def test_a_note_with_nul_characters_is_kept(project: Project, web: httpx.Client) -> None:
    """In the text, the tags and the id."""
    words = [json.dumps(one) for one in ("giraffe \0", ["nul\0"], "id\0")]
    assert project.ended(project.enqueue("capture_note", *words))[-1].state is State.COMPLETED
    assert web.post("/recall", json={"question": "giraffe"}).json()["hits"][0]["path"] == "id\0"
