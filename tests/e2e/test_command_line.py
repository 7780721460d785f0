"""The `worker` command as a program: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.audio_files import write_tone
from tests.support.project import WORKER, Project
from tests.support.waiting import wait_until
from worker.cli.config import GROUPS
from worker.cli.pools import stop_timeout
from worker.ground.json_values import to_json
from worker.history.answers import StoredMessage
from worker.history.as_json import Shown, events_of
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter, MessageFilter
from worker.history.query import all_messages, ask, read_events, state_counts
from worker.history.writer import EventWriter
from worker.operations.actions import this_user
from worker.server.connection import connect
from worker.settings import Settings

SAMPLE = Path(str(files("worker") / "sample"))
COLOURS = re.compile(r"\x1b")
FRAMES = re.compile(r"[\u2500-\u257f]")
UNREACHABLE = "redis://me:hunter2@127.0.0.1:1/0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a server and no workers."""
    made = Project(tmp_path_factory.mktemp("project"))
    made.client.ping()
    yield made
    made.down()


@pytest.fixture
def writer(project: Project) -> Iterator[Callable[..., StatusEvent]]:
    """Records an event in the project's history."""
    settings = Settings(data_dir=project.data_dir)
    opened = EventWriter(lambda: connect(settings), settings)

    def record(name: str, state: State, *, message: str = "m", becomes: str = "", **values: Any) -> StatusEvent:
        about: dict[str, Any] = {"actor": name, "queue": "cpu", "attempt": 1, "time": now()} | values
        own = f"{message}:{about['attempt']}"
        parent = None if state is State.STARTED else own
        own += ".end" if state.is_final else ".1" if state is State.PROGRESS else ""
        event = StatusEvent(event=f"{name}.{state}", state=state, id=own, parent=parent, message_id=message, **about)
        opened.record_end(event, becomes)
        assert opened.flush(10)
        return event

    yield record
    opened.close(5)


@pytest.fixture
def history(project: Project, writer: Callable[..., StatusEvent]) -> list[StatusEvent]:
    """Two messages of two actors: one failed and then completed, one was skipped yesterday."""
    project.client.flushdb()
    yesterday = now() - timedelta(hours=25)
    one: dict[str, Any] = {"message": "m-1", "subject": {"conversation_id": 42}}
    two: dict[str, Any] = {"message": "m-2", "queue": "network", "subject": {"conversation_id": "x y", "part": "a"}}
    two["time"] = yesterday
    error = ErrorInfo("ValueError", "first line\nsecond line", "Traceback …")
    done = {"text": "done \N{SNOWMAN} [red]", "duration_ms": 1_234.0}
    return [
        writer("tell", State.STARTED, queued_ms=5.0, **two),
        writer("tell", State.SKIPPED, becomes="skipped", text="unchanged", duration_ms=5.0, **two),
        writer("merge", State.STARTED, queued_ms=5.0, **one),
        writer("merge", State.FAILED, becomes="delayed", error=error, text="retry in 1s", **one),
        writer("merge", State.STARTED, attempt=2, queued_ms=5.0, **one),
        writer("merge", State.PROGRESS, attempt=2, done=1, total=2, **one),
        writer("merge", State.COMPLETED, becomes="completed", attempt=2, **done, **one),
    ]


def now() -> datetime:
    """The time as events tell it: in milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def printed(project: Project, *words: str) -> list[str]:
    """The ids of the events that `worker events --json` prints, a JSON object a line."""
    return [json.loads(line)["id"] for line in project.worker("events", *words, "--json").stdout.splitlines()]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, after nothing on standard output and without a traceback."""
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("worker: ")
    return line


def test_events_are_printed_oldest_first_as_one_json_object_a_line(
    project: Project, history: list[StatusEvent]
) -> None:
    """Exactly as they were recorded."""
    lines = project.worker("events", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == to_json(events_of(history, Shown(tracebacks=True)))


FILTERS: dict[tuple[str, ...], list[int]] = {
    ("--message-id", "m-1"): [2, 3, 4, 5, 6],
    ("--message-id", "nobody"): [],
    ("--subject", "conversation_id=42"): [2, 3, 4, 5, 6],
    ("--subject", "conversation_id=x y", "--subject", "part=a"): [0, 1],
    ("--subject", "conversation_id=42", "--subject", "part=a"): [],
    ("--actor", "tell"): [0, 1],
    ("--state", "failed"): [3],
    ("--state", "STARTED", "--actor", "merge"): [2, 4],
    ("--since", "1h"): [2, 3, 4, 5, 6],
    ("--since", "2d"): [0, 1, 2, 3, 4, 5, 6],
    ("--limit", "2"): [5, 6],
    ("--limit", "1", "--state", "started"): [4],
}


@pytest.mark.parametrize("words", FILTERS, ids=" ".join)
def test_events_are_filtered_by_all_that_is_asked(
    project: Project, history: list[StatusEvent], words: tuple[str, ...]
) -> None:
    """By message, subject, actor, state and time; the newest so many."""
    assert printed(project, *words) == [history[number].id for number in FILTERS[words]]


def test_events_are_followed_without_gaps(
    project: Project, history: list[StatusEvent], writer: Callable[..., StatusEvent]
) -> None:
    """Those that are there, then those that come, each once; a Ctrl-C ends it without a traceback."""
    words = ["events", "--follow", "--json", "--actor", "merge", "--limit", "2"]
    with project.piped(*words) as command:
        seen = [json.loads(command.out.readline())["id"] for _ in range(2)]
        writer("tell", State.STARTED)
        new = [writer("merge", State.STARTED, attempt=number, message="m-1") for number in range(3, 6)]
        seen += [json.loads(command.out.readline())["id"] for _ in new]
        command.process.send_signal(2)
        assert command.out.read() == ""
        assert "Traceback" not in command.err.read()
    assert command.process.returncode == 130
    assert seen == [event.id for event in [*history[-2:], *new]]


PRINTS = (
    *("--help", "enqueue --help", "events --json --limit 3", "events", "messages", "messages --json", "show m-1"),
    *("status", "config", "doctor", "export --to -", "actions"),
)
"""What prints, and a misuse of the command."""


@pytest.mark.parametrize("words", PRINTS)
def test_a_reader_who_has_seen_enough_is_no_error(project: Project, history: list[StatusEvent], words: str) -> None:
    """As in `worker events --follow | head -1`: nothing is said of it, and the exit code is as without it."""
    expected = project.run(WORKER, *words.split(), code=None)
    with project.piped(*words.split()) as command:
        command.out.close()
        said = command.err.read()
    assert (command.process.returncode, said) == (0 if expected.stdout else expected.returncode, expected.stderr)


@pytest.mark.parametrize("words", ["health --here", "messages", "--help"])
def test_a_closed_or_full_output_is_told_in_one_line(project: Project, words: str) -> None:
    """Its caller has closed it, as programs that start others do, or the disk is full: no traceback."""

    def said(output: str) -> tuple[int, list[str]]:
        shell = f"exec {sys.executable} -m worker {words} >{output}"
        done = subprocess.run(
            ["sh", "-c", shell],
            env=project.environment,
            cwd=project.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr.splitlines()

    code, lines = said("&-")
    assert (code in (0, 1), lines) == (True, [])
    assert said("/dev/full") == (1, ["worker: nothing more can be written: No space left on device"])


def test_a_piped_table_of_events_is_plain_text_a_line_each(project: Project, history: list[StatusEvent]) -> None:
    """No colours, no frames, no markup, nothing cut off, and a traceback only as its error's first line."""
    out = project.worker("events").stdout
    assert not COLOURS.search(out)
    assert not FRAMES.search(out)
    heading, *lines = out.splitlines()
    assert heading.split() == ["time", "event", "attempt", "took", "waited", "subject", "text"]
    assert len(lines) == len(history)
    assert [event.event for event, line in zip(history, lines, strict=True) if event.event not in line.split()] == []
    assert "ValueError: first line; retry in 1s" in lines[3]
    assert "second line" not in out
    assert "1/2" in lines[5]
    assert "done \N{SNOWMAN} [red]" in lines[6]
    assert "conversation_id=x y part=a" in lines[0]


def test_events_tell_what_blocked_an_event_loop_and_for_how_long(
    project: Project, writer: Callable[..., StatusEvent]
) -> None:
    """In a line for people, and as fields in JSON."""
    project.client.flushdb()
    blocked = {"blocked_ms": 1_200.0, "blocked_at": "service.py:7 in read"}
    writer("merge", State.COMPLETED, becomes="completed", duration_ms=2_000.0, **blocked)
    assert "loop blocked 1.2s at service.py:7 in read" in project.worker("events").stdout
    found = json.loads(project.worker("events", "--json").stdout)
    assert {name: found[name] for name in blocked} == blocked


def test_very_long_texts_stay_on_their_line(project: Project, writer: Callable[..., StatusEvent]) -> None:
    """A pipe has no width."""
    project.client.flushdb()
    subject = {f"key{number}": "v" * 1_900 for number in range(6)}
    writer("merge", State.STARTED, subject=subject, text="t" * 2_000)
    assert len(project.worker("events").stdout.splitlines()) == 2


def test_settings_are_shown_with_where_they_come_from_and_without_secrets(project: Project) -> None:
    """From the environment, from the project's `.env`, or as they are by default."""
    folder = project.folder / "other"
    folder.mkdir()
    (folder / ".env").write_text("WORKER_MAX_RETRIES=3\nWORKER_SUMMARIZER_API_KEY=hunter2\n")
    variables = {
        "WORKER_REDIS_URL": UNREACHABLE,
        "WORKER_DATABASE_URL": "postgresql+asyncpg://me:hunter2@host/db",
        "WORKER_OBJECTS_URL": "s3://me:hunter2@bucket",
        "WORKER_SUMMARIZER_URL": "https://me:hunter2@models.example/v1",
        "THREAD_POOL_SIZE": "7",
        "WORKER_MAX_RETRYS": "4",
    }
    done = project.worker("config", "--json", cwd=folder, variables=variables)
    found = json.loads(done.stdout)
    assert found["WORKER_MAX_RETRIES"] == {"value": "3", "from": ".env"}
    assert found["WORKER_THREAD_POOL_SIZE"] == {"value": "7", "from": "environment (THREAD_POOL_SIZE)"}
    assert found["WORKER_HISTORY_RETENTION"] == {"value": "7d", "from": "default"}
    assert found["WORKER_DATA_DIR"] == {
        "value": str(project.data_dir),
        "from": "environment (WORKER_DATA_DIR)",
    }
    assert found["WORKER_REDIS_URL"]["value"] == "redis://me:***@127.0.0.1:1/0"
    assert set(found) == {f"WORKER_{name.upper()}" for group in GROUPS for name in group.model_fields}
    [warning] = done.stderr.splitlines()
    assert "WORKER_MAX_RETRYS" in warning
    table = project.worker("config", cwd=folder, variables=variables)
    for out in (done.stdout, table.stdout, done.stderr, table.stderr):
        assert "hunter2" not in out
    assert not COLOURS.search(table.stdout)
    assert not FRAMES.search(table.stdout)
    assert len(table.stdout.splitlines()) == len(found) + 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORKER_MAX_RETRIES": "many"}, ["WORKER_MAX_RETRIES=many: "]),
        ({"THREAD_POOL_SIZE": "x", "WORKER_TIME_LIMIT": "0"}, ["THREAD_POOL_SIZE=x: ", "WORKER_TIME_LIMIT=0: "]),
        ({"WORKER_SUMMARIZER": "openai"}, ["WORKER_SUMMARIZER=openai needs WORKER_SUMMARIZER_MODEL"]),
        ({"WORKER_SYNC_BATCH": "0", "WORKER_GRACE": "x"}, ["WORKER_SYNC_BATCH=0: ", "WORKER_GRACE=x: "]),
    ],
)
def test_bad_settings_are_a_line_each(project: Project, variables: dict[str, str], said: list[str]) -> None:
    """With name and value, exit code 2, and no traceback."""
    done = project.worker("config", code=2, variables=variables)
    assert done.stdout == ""
    lines = [line.removeprefix("worker: ") for line in done.stderr.splitlines()]
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(sorted(lines), sorted(said), strict=True))


BAD_URLS = [
    "redis://me:hunter2@h:1/0?x=1",
    "redis://h:1/0?protocol=9&password=hunter2",
    "rediss://h:1/0?ssl_cert_reqs=q",
    "redis://h:1/0?decode_responses=true",
    "redis://h:1/0?retry=3",
    "redis://h:1/0?maint_notifications_config=5",
    "redis://h:port/0",
    "unix:///tmp/x?x=1&password=hunter2",
    "redis://:hunter2@h/staging",
    "redis://h:1/0/1",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_url_of_the_server_that_cannot_be_used_is_a_line(project: Project, url: str) -> None:
    """Wherever the server is asked, also for its health; without the password."""
    for command in ("health", "status", "doctor"):
        done = project.worker(command, code=2, variables={"WORKER_REDIS_URL": url})
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith("worker: WORKER_REDIS_URL=")
        assert "hunter2" not in line


def test_who_names_an_environment_in_the_url_is_told_of_the_setting(project: Project) -> None:
    """Libraries take a name there for database 0: two environments would be one."""
    done = project.worker("status", code=2, variables={"WORKER_REDIS_URL": "redis://h/staging"})
    assert "WORKER_NAMESPACE" in done.stderr


@pytest.mark.parametrize("name", ["a:b", "{a}", "a b", "é", "a/b"])
def test_a_namespace_that_cannot_be_part_of_a_key_is_refused(project: Project, name: str) -> None:
    """One line with the name, the value, and what is allowed."""
    done = project.worker("status", code=2, variables={"WORKER_NAMESPACE": name})
    [line] = done.stderr.splitlines()
    assert line == f"worker: WORKER_NAMESPACE={name}: may only have letters, digits, hyphens, underscores and dots"


def test_a_pool_size_out_of_range_is_clamped_with_a_warning(project: Project) -> None:
    """Once, on standard error."""
    done = project.worker("config", "--json", variables={"WORKER_THREAD_POOL_SIZE": "5000"})
    assert json.loads(done.stdout)["WORKER_THREAD_POOL_SIZE"]["value"] == "1024"
    [warning] = done.stderr.splitlines()
    assert "WORKER_THREAD_POOL_SIZE=5000" in warning


def queued(project: Project) -> list[StoredMessage]:
    """The messages in all queues, delayed ones included, oldest first; nothing is left of them."""
    found = list(all_messages(project.client, MessageFilter()))[::-1]
    project.client.flushdb()
    return found


def arguments_of(message: StoredMessage) -> list[Any]:
    arguments: list[Any] = json.loads(message.payload)["args"]
    return arguments


def test_arguments_are_json_values_or_strings(project: Project) -> None:
    """As the actor's annotations want them."""
    queued(project)
    calls = [
        ("merge_conversation", "42"),
        ("merge_conversation", "with space"),
        ("summarize_conversation", "true", "German"),
        ("summarize_conversation", "c", '"German"'),
        ("summarize_conversation", "--", "-c", "null"),
    ]
    with ThreadPoolExecutor(2) as threads:
        ids = list(threads.map(lambda call: _enqueue(project, *call), calls))
    found = {message.id: arguments_of(message) for message in queued(project)}
    assert [found.pop(message_id) for message_id in ids] == [
        ["42"],
        ["with space"],
        ["true", "German"],
        ["c", "German"],
        ["-c", None],
    ]
    assert found == {}


def _enqueue(project: Project, actor: str, *words: str) -> str:
    done = project.worker("enqueue", "--json", actor, *words)
    return str(json.loads(done.stdout)["message_id"])


def test_an_enqueued_message_is_named(project: Project) -> None:
    """With its id, in words and in JSON; the audit log says by whom."""
    queued(project)
    found = project.json("enqueue", "merge_conversation", "c")
    assert set(found) == {"message_id", "actor", "queue", "is_new"}
    assert (found["actor"], found["queue"], found["is_new"]) == ("merge_conversation", "cpu", True)
    line = project.worker("enqueue", "merge_conversation", "c").stdout
    match = re.fullmatch(r"merge_conversation enqueued as ([0-9a-f-]{36})\n", line)
    assert match is not None
    entries = project.json("audit")["actions"]
    assert [(one["by"], one["action"], one["target"], one["ids"]) for one in entries] == [
        (this_user(), "enqueue", "merge_conversation", [sent]) for sent in (match[1], found["message_id"])
    ]
    assert [(message.id, message.actor, message.queue) for message in queued(project)] == [
        (found["message_id"], "merge_conversation", "cpu"),
        (match[1], "merge_conversation", "cpu"),
    ]


def test_a_message_is_enqueued_with_the_options_of_configure(project: Project) -> None:
    """All at once; a second one with its key, or its id, is not enqueued, and the line says so."""
    queued(project)
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    words = ["--key", "k", "--ttl", "2h", "--until", "start", "--at", at, "--priority", "high", "--queue-name", "slow"]
    words += ["--message-id", "row 7", "--time-limit", "2m", "--max-retries", "3"]
    assert project.json("enqueue", "merge_conversation", "c", *words)["message_id"] == "row 7"
    said = project.worker("enqueue", "merge_conversation", "c", "--key", "k").stdout
    assert said == "nothing was enqueued: message row 7 is in the way\n"
    [message] = queued(project)
    assert (message.state, message.priority, message.queue) == ("delayed", "high", "slow")
    assert abs(message.since - datetime.fromisoformat(at)) < timedelta(minutes=1)
    options = json.loads(message.payload)["options"]
    assert (options["unique"], options["time_limit"], options["max_retries"]) == ("k", 120_000, 3)


@pytest.mark.parametrize(("delay", "seconds"), [("1h 30m", 5_400), ("365d", 31_536_000)])
def test_a_delayed_message_is_delayed_until_its_time(project: Project, delay: str, seconds: int) -> None:
    """However long that is: it costs no worker anything."""
    queued(project)
    before = datetime.now(UTC)
    project.enqueue("merge_conversation", "c", "--delay", delay)
    [message] = queued(project)
    assert message.state == "delayed"
    assert (message.since - before).total_seconds() == pytest.approx(seconds, abs=60)


MISUSE = {
    ("enqueue", "merge_conversatoin", "c"): ["merge_conversation", "process_conversation", "summarize_conversation"],
    ("enqueue", "merge_conversation"): ["merge_conversation(conversation_id: str)", "conversation_id"],
    ("enqueue", "merge_conversation", "a", "b"): ["merge_conversation(conversation_id: str)", "too many"],
    ("enqueue", "summarize_conversation", "c", "[1]", "x"): ["summarize_conversation("],
    ("enqueue", "merge_conversation", "c", "--delay", "soon"): ["--delay", "soon", "10s"],
    ("enqueue", "merge_conversation", "c", "--delay", "5000"): ["--delay 5000", "5s", "1h23m20s"],
    ("enqueue", "merge_conversation", "c", "--at", "2036-11-21T09:00"): ["--at 2036-11-21T09:00", "no time zone"],
    ("enqueue", "merge_conversation", "c", "--ttl", "5m"): ["--ttl", "give key= too"],
    ("enqueue",): ["actor", "--help"],
    ("events", "--state", "done"): ["--state done", "completed"],
    ("events", "--subject", "42"): ["--subject 42", "key=value"],
    ("events", "--since", "yesterday"): ["--since yesterday"],
    ("events", "--since", "2h", "--until", "3h"): ["--since 2h: it is later than until 3h: swap them"],
    ("messages", "--actor", "a", "--actor", "b"): ["--actor: 2 were given: at most 1"],
    ("status", "--since", "400d"): ["--since 400d: at most 366d"],
    ("events", "--limit", "0"): ["--limit"],
    ("events", "--nonsense"): ["--nonsense", "--help"],
    ("nonsense",): ["nonsense", "--help"],
    ("conversations", "show", "nobody"): ["'nobody'", "worker conversations import"],
    ("conversations", "import", "/nowhere"): ["/nowhere"],
    ("conversations", "import", str(SAMPLE), "--id", "../up"): ["'../up'"],
}


@pytest.mark.parametrize("words", MISUSE, ids=" ".join)
def test_misuse_is_one_line_that_says_what_is_right(project: Project, words: tuple[str, ...]) -> None:
    """Exit code 2, no traceback, and nothing is enqueued."""
    queued(project)
    line = refused(project.worker(*words, code=2))
    for part in MISUSE[words]:
        assert part in line
    assert queued(project) == []


def test_arguments_of_the_wrong_type_are_refused(project: Project) -> None:
    """By the annotations of another project's actors, before anything is enqueued."""
    folder = project.folder / "typed"
    folder.mkdir()
    (folder / "typed_actors.py").write_text(
        "from worker import actor\n\n\n@actor\ndef add(one: int, *more: float, name: str = '') -> None: ...\n"
    )
    queued(project)
    variables = {"WORKER_ACTORS": "typed_actors", "PYTHONPATH": str(folder)}
    for words in (["one"], ["1.5"], ["true"], ["1", "x"], []):
        line = refused(project.worker("enqueue", "add", *words, code=2, variables=variables))
        assert "add(one: int, *more: float, name: str = '')" in line
    assert queued(project) == []
    project.worker("enqueue", "add", "1", "2.5", "3", variables=variables)
    assert [arguments_of(message) for message in queued(project)] == [[1, 2.5, 3]]


def test_actors_that_are_not_there_are_named(project: Project) -> None:
    """With the variable that names their module."""
    line = refused(project.worker("enqueue", "add", code=2, variables={"WORKER_ACTORS": "nowhere.actors"}))
    assert "WORKER_ACTORS=nowhere.actors" in line


def test_two_folders_of_one_project_share_its_data(project: Project) -> None:
    """The nearest `pyproject.toml`, upwards, says whose they are."""
    folder = project.folder / "shared"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    environment = {name: value for name, value in project.environment.items() if name != "WORKER_DATA_DIR"}
    client = connect(Settings(data_dir=folder / ".worker"))
    try:
        for where in (folder, folder / "a" / "b"):
            subprocess.run(
                [WORKER, "enqueue", "merge_conversation", "c"], cwd=where, env=environment, check=True, timeout=60
            )
        assert ask(client, state_counts()) == {"queued": 2}
    finally:
        client.close()
        subprocess.run([WORKER, "down"], cwd=folder, env=environment, check=True, timeout=60)


def test_a_folder_is_imported_and_shown(project: Project, tmp_path: Path) -> None:
    """Audio files in name order, each with the transcript beside it; what was left out is named."""
    for name in ("2.wav", "10.wav", "1.flac"):
        write_tone(tmp_path / name, 0.1)
    (tmp_path / "2.txt").write_text("Second, says [bold]somebody[/bold].\n\nÜber alles.", encoding="utf-8")
    (tmp_path / "notes.md").touch()
    (tmp_path / "3.txt").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "more").mkdir()
    assert project.json("conversations", "import", str(tmp_path), "--id", "three") == {
        "conversation_id": "three",
        "chunks": 3,
        "left_out": [
            {"name": "3.txt", "reason": "a transcript without an audio file"},
            {"name": "more", "reason": "a folder"},
            {"name": "notes.md", "reason": "not an audio file"},
        ],
    }
    found = project.json("conversations", "show", "three")
    assert [chunk["id"] for chunk in found["chunks"]] == ["three/1.flac", "three/10.wav", "three/2.wav"]
    assert [chunk["transcript"] for chunk in found["chunks"]] == [
        None,
        None,
        "Second, says [bold]somebody[/bold].\n\nÜber alles.",
    ]
    assert (found["merged"], found["summary"]) == (None, None)
    out = project.worker("conversations", "show", "three").stdout
    assert "Second, says [bold]somebody[/bold]." in out
    assert not COLOURS.search(out)
    assert not FRAMES.search(out)


def test_an_import_without_an_id_is_called_as_its_folder(project: Project, tmp_path: Path) -> None:
    """Said in one line; a second time is refused and changes nothing."""
    folder = tmp_path / "board-meeting"
    folder.mkdir()
    write_tone(folder / "1.wav", 0.1)
    assert project.worker("conversations", "import", str(folder)).stdout == "conversation board-meeting: 1 chunk\n"
    assert "--id" in refused(project.worker("conversations", "import", ".", cwd=folder, code=2))
    assert len(project.json("conversations", "show", "board-meeting")["chunks"]) == 1


def test_paths_are_printed_as_they_are(project: Project) -> None:
    """Brackets in a folder's name are no markup."""
    other = Project(project.folder / "data [old] [bold]")
    try:
        other.worker("conversations", "import", str(SAMPLE), "--id", "sample")
        merge = "from worker.tasks.conversations import merge_conversation; merge_conversation.fn('sample')"
        other.run(sys.executable, "-c", merge)
        merged = other.json("conversations", "show", "sample")["merged"]
        assert f"merged: {merged['path']} (24.7s, 5 chunks)" in other.worker("conversations", "show", "sample").stdout
    finally:
        other.down()


@pytest.mark.parametrize(
    "words",
    [("events",), ("enqueue", "merge_conversation", "c"), ("up",), ("demo",)],
    ids=" ".join,
)
def test_a_server_out_of_reach_is_one_line(project: Project, words: tuple[str, ...]) -> None:
    """It names the address without the password and what to check, exit code 1; no server is started instead."""
    data = project.folder / "unreachable"
    variables = {"WORKER_REDIS_URL": UNREACHABLE, "WORKER_DATA_DIR": str(data)}
    line = refused(project.worker(*words, code=1, variables=variables))
    assert "redis://me:***@127.0.0.1:1/0" in line
    assert "WORKER_REDIS_URL" in line
    assert "hunter2" not in line
    assert not (data / "valkey").exists()


def test_a_server_that_may_not_be_started_is_one_line(project: Project) -> None:
    """Where none is configured and `WORKER_EMBEDDED=never` forbids ours."""
    data = project.folder / "never"
    variables = {"WORKER_EMBEDDED": "never", "WORKER_DATA_DIR": str(data)}
    line = refused(project.worker("events", code=2, variables=variables))
    assert "WORKER_REDIS_URL" in line
    assert not (data / "valkey").exists()


def test_each_use_of_the_embedded_server_is_one_line_for_those_who_ask(project: Project) -> None:
    """On standard error, as JSON where that is no terminal; a script that has set no level gets nothing there."""
    done = project.worker("events", "--limit", "1", variables={"WORKER_LOG_LEVEL": "info"})
    [line] = done.stderr.splitlines()
    assert json.loads(line)["event"] == "using the embedded Valkey"
    assert json.loads(line)["data"] == str(project.data_dir / "valkey")
    assert project.worker("events", "--limit", "1").stderr == ""


def test_what_the_locale_cannot_write_is_escaped(project: Project) -> None:
    """JSON stays JSON, and a table is shown; no command ends with an error because of a text."""
    few = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    message_id = project.send("écrire 🖊", "naïve")
    [found] = project.json("messages", "--arguments", variables=few)["messages"]
    assert found["actor"] == "écrire 🖊"
    assert "\\u00e9crire" in project.worker("show", message_id, variables=few).stdout


def test_every_command_takes_json_and_explains_itself(project: Project) -> None:
    """Its help names the option."""
    commands = ["demo", "up", "down", "config", "enqueue", "events", "conversations import", "conversations show"]
    listed = project.worker("--help").stdout
    assert [command for command in commands if command.split()[0] not in listed] == []
    with ThreadPoolExecutor(2) as threads:
        helps = threads.map(lambda command: project.worker(*command.split(), "--help").stdout, commands)
    assert [command for command, said in zip(commands, helps, strict=True) if "--json" not in said] == []


def children_of(pid: int) -> list[psutil.Process]:
    """The pools that a `worker up` has started."""
    return [one for one in psutil.Process(pid).children() if "--queues" in one.cmdline()]


def test_a_running_up_says_so_in_json(project: Project, tmp_path: Path) -> None:
    """A line when it is up, with its pools, and one when it has stopped; what computes lets others go first."""
    other = Project(tmp_path / "up")
    try:
        with other.background(WORKER, "up", "--json") as up:
            log = other.folder / "worker.log"
            wait_until(lambda: '"state"' in log.read_text())
            other.worker("enqueue", "merge_conversation", "nobody")
            wait_until(lambda: read_events(other.client, EventFilter(state=State.SKIPPED), 1))
            pools = {one.cmdline()[one.cmdline().index("--queues") + 1]: one for one in children_of(up.pid)}
            assert pools["cpu"].nice() > pools["network"].nice()
            up.terminate()
            assert up.wait(30) == 0
        said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"state"')]
        known = {"pools": ["cpu", "network"]}
        assert said == [{"state": "up", **known, "exit_code": None}, {"state": "stopped", **known, "exit_code": 0}]
    finally:
        other.down()


ENDLESS = """
import asyncio
from pathlib import Path

from worker import actor


@actor
async def endless(folder: str) -> None:
    Path(folder, "started").touch()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.3)
        Path(folder, "cleaned up").touch()
"""


def test_up_ends_attempts_when_their_grace_is_over(tmp_path: Path) -> None:
    """They clean up, their messages wait for other workers, nothing is killed, and no process is left."""
    (tmp_path / "endless_actors.py").write_text(ENDLESS)
    other = Project(tmp_path / "up", WORKER_ACTORS="endless_actors", PYTHONPATH=str(tmp_path), WORKER_GRACE="300ms")
    try:
        with other.background(WORKER, "up") as up:
            sent = other.enqueue("endless", str(tmp_path))
            wait_until((tmp_path / "started").exists)
            up.terminate()
            assert up.wait(20) == 0
            assert other.processes() == {}
        assert (tmp_path / "cleaned up").exists()
        assert "killed" not in (other.folder / "worker.log").read_text()
        [started, cancelled] = other.events(sent)
        assert (started.state, cancelled.state, cancelled.text) == (State.STARTED, State.CANCELLED, "shutdown")
        assert ask(other.client, state_counts()) == {"queued": 1}
    finally:
        other.down()


@pytest.mark.parametrize("grace", ["20s", "1h"])
def test_workers_are_killed_only_when_their_attempts_have_had_grace_and_clean_up(grace: str) -> None:
    """A longer grace makes `worker up` wait longer."""
    settings = Settings(grace=grace, cleanup_timeout="7s")
    assert stop_timeout(settings) > settings.grace.total_seconds() + 7
