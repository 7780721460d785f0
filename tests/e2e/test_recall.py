"""Recall by real processes: the web enqueues, a worker captures, and both share one index."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.project import WORKER, Project
from tests.support.waiting import TIMEOUT, wait_until
from worker.history.events import State

SAMPLE = Path(str(files("worker") / "sample"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with `worker up`."""
    made = Project(tmp_path_factory.mktemp("recall"))
    with made.background(WORKER, "up"):
        yield made
    made.down()


@pytest.fixture(scope="module")
def web(running: Project) -> Iterator[httpx.Client]:
    """A client of its `worker web`."""
    with (
        running.background(WORKER, "web", "--json"),
        httpx.Client(base_url=running.served(begun_by="worker"), timeout=TIMEOUT) as client,
    ):
        yield client


def hits(web: httpx.Client, question: str) -> list[dict[str, Any]]:
    answer = web.post("/recall", json={"question": question})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["hits"]
    return found


def captured(web: httpx.Client, text: str) -> str:
    answer = web.post("/capture", json={"text": text})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["note_id"])


@pytest.mark.clock
def test_a_note_is_found_within_a_second(running: Project, web: httpx.Client) -> None:
    """Once the worker has kept its first: it loads what it needs then."""
    first = captured(web, "Loading takes a while.")
    wait_until(lambda: [hit["path"] for hit in hits(web, "loading")] == [first])
    took = []
    for word in ("apricot", "banana", "cherry"):
        began = time.monotonic()
        note_id = captured(web, f"The {word} is in the kitchen.")
        wait_until(lambda word=word, note_id=note_id: hits(web, word)[0]["path"] == note_id)  # type: ignore[misc]
        took.append(time.monotonic() - began)
    assert min(took) < 1
    assert [event.text for event in running.ended(first)][-1] == "indexed in 1 chunk"


def test_a_conversation_is_found_once_it_is_summarized(running: Project) -> None:
    """On the command line, by what was said."""
    running.worker("conversations", "import", str(SAMPLE), "--id", "sample")
    running.ended(running.enqueue("summarize_conversation", "sample"))
    wait_until(lambda: not running.waiting())
    said = (SAMPLE / "0880.txt").read_text()
    found = running.json("recall", said[:200])
    assert {(hit["kind"], hit["path"]) for hit in found["hits"]} >= {("transcript", "sample"), ("summary", "sample")}
    assert found["left_out"] == []


def test_questions_in_a_batch_are_answered_in_an_object(running: Project) -> None:
    """A line for each, where the history says."""
    event = running.ended(running.enqueue("recall_batch", '["apricot", "nothing like it"]'))[-1]
    said, _, where = event.text.partition(": ")
    assert said == "2 questions answered"
    answers = [json.loads(line) for line in Path(where).read_text().splitlines()]
    assert [answer["question"] for answer in answers] == ["apricot", "nothing like it"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recall_batch", '["apricot", ""]'), "the question is blank"),
        (("recall_batch", '["apricot"]', "null", "500"), "the limit is 500"),
        (("recall_batch", '["apricot"]', "nowhere"), "no repository 'nowhere'"),
        (("capture_note", "x" * 50_001), "the note has 50001 characters"),
        (("capture_note", "x", '[""]'), "at most 20 tags"),
    ],
    ids=["blank", "limit", "repository", "long", "tags"],
)
def test_what_can_never_succeed_is_not_retried(running: Project, words: tuple[str, ...], said: str) -> None:
    """It is a dead letter after its first attempt, and the history says why."""
    message_id = running.enqueue(*words)
    wait_until(lambda: len(running.events(message_id)) > 1)
    events = running.events(message_id)
    assert [event.state for event in events] == [State.STARTED, State.FAILED]
    error = events[-1].error
    assert error is not None
    assert error.type.endswith("Fatal")
    assert said in error.text
    wait_until(lambda: message_id in running.dead_letters())


def test_the_index_is_looked_after_on_the_command_line(running: Project) -> None:
    """Made anew, it finds the same."""
    running.ended(running.enqueue("capture_note", "The plate is in the kitchen."))
    before = running.json("recall", "kitchen")["hits"]
    assert running.json("index", "rebuild")["chunks"] > 0
    assert running.json("index", "optimize") == {"optimized": True}
    after = running.json("recall", "kitchen")["hits"]
    # Some are as good as others, and come in any order.
    assert {hit["path"] for hit in after} == {hit["path"] for hit in before}


def test_a_hit_reads_well_for_people(running: Project) -> None:
    """Where it is, and what it says."""
    note_id = running.enqueue("capture_note", "The \x1b[31m\x1b[0m plum is blue.\nIt is ripe.", '["fruit"]')
    running.ended(note_id)
    lines = running.worker("recall", "plum").stdout.splitlines()
    assert lines[0].startswith(f"note {note_id}:1-2")
    assert "fruit" in lines[0]
    assert lines[1:3] == ["    The \\x1b[31m\\x1b[0m plum is blue.", "    It is ripe."]


@pytest.mark.parametrize("question", ["", "  "])
def test_a_blank_question_is_one_line(running: Project, question: str) -> None:
    """With what to do."""
    done = running.worker("recall", question, code=2)
    assert done.stderr == "worker: the question is blank: ask for something\n"
