"""The main job, by real processes on a real server: real audio merged, real transcripts summarized."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.audio_files import decode
from tests.support.model_endpoint import fails, model_endpoint, says
from tests.support.project import BIN, ROOT, WORKER, Project, interrupt
from tests.support.waiting import TIMEOUT, wait_until
from worker.ground.json_values import to_json
from worker.history.as_json import Shown, events_of
from worker.history.events import State
from worker.history.query import ask, one_message

SAMPLE = Path(str(files("worker") / "sample"))
NAMES = ["0870.ogg", "0880.ogg", "0890.ogg", "0920.ogg", "0930.ogg"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without workers; its server is stopped in the end."""
    made = Project(tmp_path)
    yield made
    made.down()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with `worker up`, and the sample imported as `sample`."""
    made = Project(tmp_path_factory.mktemp("running"))
    with made.background(WORKER, "up"):
        made.worker("conversations", "import", str(SAMPLE), "--id", "sample")
        yield made
    made.down()


def folder_with(project: Project, name: str, *add: Callable[[Path], object]) -> str:
    folder = project.folder / name
    folder.mkdir()
    for one in add:
        one(folder)
    return str(folder)


def test_the_demo_merges_and_summarizes_a_real_conversation(project: Project) -> None:
    """Its last line says all that there is to say, and every process has ended but the server."""
    done = project.worker("demo", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == ["conversation_id", "merged", "summary", "events"]
    conversation_id, merged = found["conversation_id"], found["merged"]
    assert set(merged) == {"path", "duration_seconds", "included", "dropped"}
    assert merged["duration_seconds"] == pytest.approx(24.7, abs=0.3)
    assert merged["included"] == [f"{conversation_id}/{name}" for name in NAMES]
    assert merged["dropped"] == []
    samples, rate = decode(Path(merged["path"]))
    assert samples.shape[1] / rate == pytest.approx(24.7, abs=0.3)
    spoken = " ".join(" ".join(file.read_text() for file in sorted(SAMPLE.glob("*.txt"))).split())
    assert found["summary"]
    assert set(found["summary"].splitlines()) <= set(re.findall(r"\S.*?\.(?=\s|$)", spoken))
    actors = ["merge_conversation", "summarize_conversation", "index_conversation"]
    by_actor: dict[str, list[str]] = {actor: [] for actor in actors}
    for event in found["events"]:
        assert event["subject"] == {"conversation_id": conversation_id}
        assert event["attempt"] == 1
        by_actor[event["actor"]].append(event["event"])
    assert len({event["message_id"] for event in found["events"]}) == 3
    for actor, events in by_actor.items():
        ends = [event for event in events if not event.endswith(".progress")]
        assert ends == [f"{actor}.started", f"{actor}.completed"]
    assert project.processes() == {}
    assert project.waiting() == 0
    assert project.dead_letters() == []


def test_merging_again_is_skipped_as_unchanged(running: Project) -> None:
    """Enqueued from the command line, twice: the second attempt says so and nothing is a dead letter."""
    first = running.ended(running.enqueue("merge_conversation", "sample"))
    second = running.ended(running.enqueue("merge_conversation", "sample"))
    assert [event.event for event in first] == ["merge_conversation.started", "merge_conversation.completed"]
    assert [event.event for event in second] == ["merge_conversation.started", "merge_conversation.skipped"]
    assert second[-1].text == "unchanged"
    assert second[-1].error is None
    assert "5 chunks, 24.7 s, merged/sample/" in first[-1].text
    assert running.dead_letters() == []


def test_merges_of_one_conversation_happen_one_after_the_other(running: Project) -> None:
    """However many are asked for at once: one does the work, and each other says that it waited or came too late."""
    copies = [partial(shutil.copy, SAMPLE / "0880.ogg"), partial(shutil.copy, SAMPLE / "0920.ogg")]
    running.worker("conversations", "import", folder_with(running, "at-once", *copies))
    messages = [running.send("merge_conversation", "at-once", queue="cpu") for _ in range(6)]
    attempts = []
    for message in messages:
        events = running.ended(message)
        attempts += list(pairwise(events))
    ends = [end for start, end in attempts if start.state is State.STARTED]
    assert sorted(str(end.state) for end in ends if end.error is None) == ["completed", *["skipped"] * 5]
    assert {(str(end.state), end.error.type) for end in ends if end.error is not None} <= {
        ("snoozed", "worker.errors.LeaseTaken")
    }
    assert running.dead_letters() == []


def test_every_event_says_what_happened_where_and_how_long_it_took(running: Project) -> None:
    """All the fields that the history promises, from two processes."""
    [started, completed] = running.ended(running.enqueue("summarize_conversation", "sample", "English"))
    for event in (started, completed):
        assert (event.actor, event.queue, event.attempt) == ("summarize_conversation", "network", 1)
        assert event.subject == {"conversation_id": "sample"}
        assert event.queued_ms is not None
        assert 0 <= event.queued_ms < TIMEOUT * 1000
        assert event.worker.pid in running.processes()
    assert completed.parent == started.id
    assert completed.duration_ms is not None
    assert 0 < completed.duration_ms < TIMEOUT * 1000
    assert started.time <= completed.time
    assert re.fullmatch(r"\d+ words from 70", completed.text)


@pytest.mark.parametrize("actor", ["merge_conversation", "summarize_conversation"])
def test_an_empty_conversation_is_skipped_at_its_first_attempt(running: Project, actor: str) -> None:
    """It is acknowledged: no retry, no dead letter."""
    events = running.ended(running.enqueue(actor, f"empty-{actor}"))
    assert [(event.event, event.attempt) for event in events] == [(f"{actor}.started", 1), (f"{actor}.skipped", 1)]
    assert f"empty-{actor}" in events[-1].text
    assert running.waiting() == 0
    assert running.dead_letters() == []


def test_a_corrupt_chunk_is_left_out_and_named(running: Project) -> None:
    """The merge is COMPLETED, and both its event and the manifest name the chunk."""
    folder = folder_with(
        running,
        "corrupt",
        lambda folder: shutil.copy(SAMPLE / "0880.ogg", folder),
        lambda folder: (folder / "0900.mp3").write_bytes(b"\0" * 10_000),
        lambda folder: shutil.copy(SAMPLE / "0920.ogg", folder),
    )
    running.worker("conversations", "import", folder)
    events = running.ended(running.enqueue("merge_conversation", "corrupt"))
    assert [str(event.state) for event in events] == ["started", "completed"]
    assert "left out: corrupt/0900.mp3 (" in events[-1].text
    merged = running.json("conversations", "show", "corrupt")["merged"]
    assert merged["included"] == ["corrupt/0880.ogg", "corrupt/0920.ogg"]
    [dropped] = merged["dropped"]
    assert dropped["name"] == "corrupt/0900.mp3"
    assert dropped["reason"]
    assert "left out: corrupt/0900.mp3" in running.worker("conversations", "show", "corrupt").stdout


def test_processing_a_conversation_enqueues_both(running: Project) -> None:
    """Its event names the two messages, which are worked off by the pool of each queue."""
    running.worker("conversations", "import", str(SAMPLE), "--id", "processed")
    [started, completed] = running.ended(running.enqueue("process_conversation", "processed"))
    assert (started.event, completed.event) == ("process_conversation.started", "process_conversation.completed")
    enqueued = dict(re.findall(r"(\w+_conversation) ([0-9a-f-]{36})", completed.text))
    assert set(enqueued) == {"merge_conversation", "summarize_conversation"}
    pids = set()
    for actor, message_id in enqueued.items():
        events = running.ended(message_id)
        assert [event.event for event in events] == [f"{actor}.started", f"{actor}.completed"]
        pids.add(events[0].worker.pid)
    assert len(pids) == 2
    shown = running.json("conversations", "show", "processed")
    assert shown["merged"]["duration_seconds"] == pytest.approx(24.7, abs=0.3)
    assert shown["summary"]


SEND = """
import sys
from worker.tasks.conversations import merge_conversation
print(merge_conversation.send(sys.argv[1]).message_id)
"""


def test_any_process_with_the_same_settings_can_send(running: Project) -> None:
    """Two lines of Python, in a folder that has nothing to do with the project."""
    sent = running.run(sys.executable, "-c", SEND, "sent by python").stdout.strip()
    events = running.ended(sent)
    assert [event.event for event in events] == ["merge_conversation.started", "merge_conversation.skipped"]
    assert events[0].subject == {"conversation_id": "sent by python"}


def test_a_delayed_message_is_not_started_before_its_time(running: Project) -> None:
    """The time it waited on purpose is no time spent queued."""
    sent = running.enqueue("merge_conversation", "delayed", "--delay", "2s")
    [started, skipped] = running.ended(sent)
    assert skipped.state is State.SKIPPED
    message = ask(running.client, one_message(sent))
    assert message is not None
    assert message.enqueued is not None
    assert started.queued_ms is not None
    # The time of an event is told in whole milliseconds.
    late_ms = (started.time - message.enqueued) / timedelta(milliseconds=1) - 2_000
    assert 0 <= started.queued_ms <= late_ms + 1


FROM_A_STRANGER = """
import sys
from dramatiq import Message
from worker import create_broker
sent = create_broker().enqueue(Message("cpu", "merge_conversation", (), {"conversation": sys.argv[1]}, {}))
print(sent.message_id)
"""


def test_wrong_arguments_are_refused_where_they_are_sent_or_are_a_dead_letter_at_last(tmp_path: Path) -> None:
    """A program that knows the actor cannot send them; those of one that does not wait for a worker that takes them."""
    project = Project(tmp_path, WORKER_UNKNOWN_ACTOR="1s")
    try:
        wrong = SEND.replace("send(sys.argv[1])", "send(conversation=sys.argv[1])")
        refused = project.run(sys.executable, "-c", wrong, "x", code=1).stderr.splitlines()[-1]
        assert refused.startswith("TypeError: merge_conversation(conversation_id: ")
        assert not project.waiting()
        sent = project.run(sys.executable, "-c", FROM_A_STRANGER, "x").stdout.strip()
        with project.background(sys.executable, "-m", "dramatiq", "worker.tasks", "--processes", "1", "--threads", "1"):
            wait_until(lambda: project.dead_letters() == [sent] and not project.waiting())
        events = project.events(sent)
        assert [(str(event.state), event.attempt) for event in events] == [("waiting", None), ("failed", 1)]
        last = events[-1].error
        assert last is not None
        for text in (events[0].text, last.text):
            assert "missing a required argument: 'conversation_id'" in text
    finally:
        project.down()


def test_a_summarizer_that_fails_twice_is_asked_a_third_time(tmp_path: Path) -> None:
    """FAILED, FAILED, COMPLETED, attempts 1, 2 and 3 of one message; three requests in all."""
    with model_endpoint(fails(500), fails(500), says("It was said at last.")) as endpoint:
        project = Project(
            tmp_path,
            WORKER_SUMMARIZER="openai",
            WORKER_SUMMARIZER_URL=endpoint.url,
            WORKER_SUMMARIZER_MODEL="model-1",
            WORKER_SUMMARIZER_API_KEY="key-hunter2",
        )
        pool = "dramatiq", "worker.tasks", "--queues", "network", "--processes", "1", "--threads", "2"
        try:
            project.worker("conversations", "import", str(SAMPLE), "--id", "sample")
            sent = project.enqueue("summarize_conversation", "sample")
            with project.background(sys.executable, "-m", *pool):
                events = project.ended(sent)
            assert [(str(event.state), event.attempt) for event in events] == [
                ("started", 1),
                ("failed", 1),
                ("started", 2),
                ("failed", 2),
                ("started", 3),
                ("completed", 3),
            ]
            errors = [event.error for event in events if event.error is not None]
            assert all("this is a 500" in error.text for error in errors)
            assert len(errors) == 2
            assert all("ModelUnavailable" in error.traceback for error in errors)
            assert "hunter2" not in json.dumps(to_json(events_of(events, Shown(tracebacks=True))))
            assert len(endpoint.requests) == 3
            assert project.json("conversations", "show", "sample")["summary"] == "It was said at last."
            assert project.dead_letters() == []
        finally:
            project.down()


def test_the_procfile_runs_two_pools_and_the_web_for_messages_from_another_folder(project: Project) -> None:
    """`honcho start` in the project, `worker enqueue` elsewhere."""
    with project.background(str(BIN / "honcho"), "start", cwd=ROOT) as honcho:
        project.worker("conversations", "import", str(SAMPLE), "--id", "sample")
        sent = [project.enqueue(actor, "sample") for actor in ("merge_conversation", "summarize_conversation")]
        events = [project.ended(one) for one in sent]
        for found, actor in zip(events, ("merge_conversation", "summarize_conversation"), strict=True):
            assert [event.event for event in found] == [f"{actor}.started", f"{actor}.completed"]
        assert len({found[0].worker.pid for found in events}) == 2
        commands = list(project.processes().values())
        assert any("--queues cpu" in command for command in commands)
        assert any("--queues network" in command for command in commands)
        assert any("worker web" in command for command in commands)
        interrupt(honcho)
    assert project.processes() == {}


def test_what_was_enqueued_survives_the_server_and_one_interrupt_stops_everything(project: Project) -> None:
    """`worker down` keeps the message, `worker up` works it off, and Ctrl-C leaves no process behind."""
    project.worker("conversations", "import", str(SAMPLE), "--id", "sample")
    sent = project.enqueue("merge_conversation", "sample")
    assert project.json("down") == {"stopped": True}
    assert project.json("down") == {"stopped": False}
    with project.background(WORKER, "up") as up:
        events = project.ended(sent)
        assert [str(event.state) for event in events] == ["started", "completed"]
        assert len(project.processes()) > 2
        assert interrupt(up) == 0
        assert project.processes() == {}
    again = project.worker("events", "--message-id", sent, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in again if '"progress"' not in line] == [event.id for event in events]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "terminal closed"])
def test_workers_end_with_the_command_that_started_them(project: Project, number: signal.Signals) -> None:
    """However it is stopped: nobody would know of workers that go on."""
    with project.background(WORKER, "up") as up:
        wait_until(lambda: len(project.processes()) > 4 or up.poll() is not None)
        assert up.poll() is None
        os.kill(up.pid, number)
        up.wait(TIMEOUT)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not project.processes(), 20)
        assert project.processes() == {}


def test_a_demo_that_is_terminated_leaves_no_workers(project: Project) -> None:
    """As `timeout` and CI do it."""
    with project.background(WORKER, "demo") as demo:
        wait_until(lambda: len(project.processes()) > 4 or demo.poll() is not None)
        assert demo.poll() is None
        demo.terminate()
        demo.wait(TIMEOUT)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not project.processes(), 20)
        assert project.processes() == {}
