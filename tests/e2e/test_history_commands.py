"""The commands that ask the history and act on messages, as programs, at real workers with real messages."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.logs import logging_put_back
from tests.support.project import ROOT, WORKER, Project
from tests.support.waiting import wait_until
from worker.cli import main
from worker.history.overview import workers
from worker.history.query import ask, one_message
from worker.settings.groups import put_in_force

COLOURS = re.compile(r"\x1b")
FRAMES = re.compile(r"[\u2500-\u257f]")
HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07 over\rwritten [bold]"

ACTORS = f"""
import asyncio
from pathlib import Path

from worker import ProcessingStatusContext, actor, run_async_in_new_loop


@actor(subject=("conversation_id",))
async def breaks(folder: str, conversation_id: int) -> None:
    if not Path(folder, "mended").exists():
        raise ValueError({HOSTILE!r})


@actor(queue_name="slow", subject=("name",))
def waits(folder: str, name: str) -> None:
    with ProcessingStatusContext("waits", name=name) as status:
        while not Path(folder, f"{{name}}.go").exists():
            status.progress(1, 3, "the first part")
            run_async_in_new_loop(lambda: asyncio.sleep(0.05))


@actor
async def works(number: int) -> None:
    pass
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a server and a worker."""
    folder = tmp_path_factory.mktemp("project")
    made = Project(
        folder, WORKER_ACTORS="telling_actors", PYTHONPATH=str(folder), WORKER_MAX_RETRIES="1", WORKER_LOG_LEVEL="error"
    )
    (folder / "telling_actors.py").write_text(ACTORS)
    made.client.ping()
    try:
        with made.background(WORKER, "up"):
            wait_until(lambda: any(one.alive and one.queues for one in ask(made.client, workers())))
            yield made
    finally:
        made.down()


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Project]:
    """A project with a server and no workers."""
    made = Project(tmp_path / "idle", WORKER_LOG_LEVEL="error")
    made.client.ping()
    yield made
    made.down()


def state_of(project: Project, message_id: str) -> str:
    found = ask(project.client, one_message(message_id))
    return "" if found is None else found.state


def until_state(project: Project, message_id: str, state: str) -> str:
    wait_until(lambda: state_of(project, message_id) == state)
    return message_id


def broken(project: Project, conversation_id: int) -> str:
    """A dead letter about a conversation."""
    sent = project.send("breaks", str(project.folder), conversation_id)
    return until_state(project, sent, "dead")


def running(project: Project, name: str) -> str:
    """A message that runs until its file is there."""
    return until_state(project, project.send("waits", str(project.folder), name, queue="slow"), "running")


def ids(project: Project, *words: str) -> list[str]:
    return [message["id"] for message in project.json(*words)["messages"]]


def refused(project: Project, *words: str, code: int = 2) -> str:
    """The one line of an error."""
    done = project.worker(*words, code=code)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("worker: ")
    return line


def test_what_failed_last_is_listed_first(project: Project) -> None:
    """By `dead list`, `messages` and `status`, although it was enqueued before the other."""
    first, second = broken(project, 7), broken(project, 8)
    project.json("dead", "replay", first)
    wait_until(lambda: project.json("show", first)["attempts"] == 4)
    until_state(project, first, "dead")
    assert ids(project, "dead", "list", "--limit", "2") == [first, second]
    assert ids(project, "messages", "--state", "dead", "--limit", "2") == [first, second]
    assert [one["id"] for one in project.json("status")["failures"]][:2] == [first, second]


def test_a_failed_message_is_found_shown_and_replayed(project: Project) -> None:
    """From "something is wrong" to the answer, and the same message completes when its cause is mended."""
    sent = broken(project, 42)
    filters = ["--state", "failed", "--actor", "breaks", "--subject", "conversation_id=42", "--since", "2h"]
    assert ids(project, "messages", *filters) == [sent]
    assert ids(project, "dead", "list", *filters) == [sent]
    assert project.json("messages", *filters, "--count") == {"count": 1, "cursor": None}
    assert ids(project, "messages", *filters, "--error", "KeyError") == []

    shown = project.json("show", sent)
    assert (shown["state"], shown["subject"]) == ("dead", {"conversation_id": "42"})
    assert [(one["number"], one["state"]) for one in shown["timeline"]] == [(1, "failed"), (2, "failed")]
    assert all("in breaks" in one["error"]["traceback"] for one in shown["timeline"])
    assert shown["arguments"] is None

    said = project.worker("dead", "show", sent).stdout
    assert "attempt 2  failed" in said
    assert "Traceback (most recent call last)" in said
    assert "attempts" not in said.partition("Traceback")[2]  # the package's own frames
    assert "/worker/attempts/" in project.worker("show", sent, "--whole").stdout
    assert "ValueError: \\x1b[31mred" in said

    (project.folder / "mended").touch()
    replayed = project.json("dead", "replay", sent)
    assert (replayed["count"], replayed["ids"], replayed["refused"]) == (1, [sent], {})
    until_state(project, sent, "completed")
    (project.folder / "mended").unlink()
    [asked] = project.json("show", sent)["requests"]
    assert (asked["text"], asked["by"]) == ("replay", project.json("audit", "--limit", "1")["actions"][0]["by"])
    assert "replay by" in project.worker("show", sent).stdout
    assert "not a dead letter" in refused(project, "dead", "show", sent, code=2)


def test_hostile_text_of_messages_is_printed_as_text(project: Project) -> None:
    """Neither a pipe nor a terminal gets a control character, and markup is no markup."""
    sent = broken(project, 43)
    for words in (["show", sent], ["messages"], ["dead"], ["status"], ["events", "--message-id", sent]):
        out = project.worker(*words).stdout
        assert "\\x1b[31mred\\x1b[0m" in out
        assert not COLOURS.search(out)
        assert not FRAMES.search(out)
        assert set(re.findall(r"[\x00-\x1f\x7f-\x9f]", out)) == {"\n"}
        on_terminal = terminal(project, words)
        assert "\\x1b[31m" in "".join(on_terminal.split())
        assert "\x1b[31mred" not in on_terminal
        assert "\x1b]0;" not in on_terminal
        assert "\x07" not in on_terminal
    raw = project.worker("show", sent, "--json").stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", raw)
    assert json.loads(raw)["timeline"][0]["error"]["text"] == HOSTILE


def terminal(project: Project, words: list[str], *, until: str = "", typed: str = "") -> str:
    """What a command prints on a terminal, to its end, or until a text is there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    environment = project.environment | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [WORKER, *words], cwd=project.elsewhere, env=environment, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    said = ""
    if typed:
        os.write(leader, typed.encode())
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(leader, 65_536):
            said += part.decode(errors="replace")
            if until and until in said:
                process.send_signal(signal.SIGINT)
                until = ""
    process.wait(30)
    watchdog.cancel()
    os.close(leader)
    return said


def test_what_runs_is_listed_with_its_progress_and_cancelled(project: Project) -> None:
    """Where it runs, and how far it is; when it is cancelled, it ends so, and is not retried."""
    sent = running(project, "one")
    wait_until(lambda: project.json("running")["messages"][0]["progress"] is not None)
    [found] = project.json("running")["messages"]
    assert (found["id"], found["attempt"], found["progress"]["done"]) == (sent, 1, 1)
    [line] = project.worker("running").stdout.splitlines()[1:]
    assert line.startswith(sent)
    assert "1/3 the first part" in line
    assert project.json("cancel", "--subject", "name=one")["ids"] == [sent]
    until_state(project, sent, "cancelled")
    assert project.json("running")["messages"] == []
    assert "cancel by" in project.worker("show", sent).stdout


def test_a_delayed_message_is_listed_and_run_now(project: Project) -> None:
    """Those that are due first come first."""
    later, sooner = (project.enqueue("works", "1", "--delay", delay) for delay in ("3h", "2h"))
    assert ids(project, "delayed") == [sooner, later]
    assert ids(project, "delayed", "--limit", "1") == [sooner]
    assert "1h 59m" in project.worker("delayed").stdout
    assert project.json("run-now", sooner)["ids"] == [sooner]
    until_state(project, sooner, "completed")
    assert project.json("cancel", "--state", "delayed")["ids"] == [later]


def test_a_paused_queue_keeps_its_messages(project: Project) -> None:
    """Until it is resumed; who paused it is shown."""
    assert project.json("pause", "default") == {"queue": "default", "paused": True, "changed": True}
    assert project.json("pause", "default")["changed"] is False
    [pause] = [one["pause"] for one in project.json("queues")["queues"] if one["name"] == "default"]
    assert pause["by"] in project.worker("status").stdout
    sent = project.send("works", 1)
    wait_until(lambda: "1" in project.worker("queues").stdout)
    assert state_of(project, sent) == "queued"
    assert project.json("resume", "default")["changed"] is True
    until_state(project, sent, "completed")
    assert [one["action"] for one in project.json("audit", "--limit", "2")["actions"]] == ["resume", "pause"]
    assert "default" in refused(project, "pause", "nowhere")


def test_the_status_shows_everything_on_one_screen(project: Project) -> None:
    """Health, states, rates, queues, workers, what runs, and what failed."""
    dead = broken(project, 44)
    runs = running(project, "two")
    found = project.json("status")
    assert found["health"]["state"] == "healthy"
    assert found["states"]["running"] == 1
    assert found["states"]["dead"] >= 1
    [rates] = [one for one in found["actors"] if one["actor"] == "breaks"]
    assert rates["ended"]["failed"] >= 2
    assert rates["duration"]["p99_ms"] >= rates["duration"]["p50_ms"] > 0
    assert {one["name"] for one in found["queues"]} == {"default", "slow"}
    [worker] = found["workers"]
    assert worker["alive"]
    assert [one["id"] for one in found["running"]] == [runs]
    assert dead in [one["id"] for one in found["failures"]]
    assert found["dead_by_cause"]["ValueError"] >= 1
    out = project.worker("status").stdout
    for title in ("actors, last 1h", "queues", "workers", "running, newest 5", "dead letters", "failed, newest 5"):
        assert title in out
    assert f"{worker['host']}:{worker['pid']}" in project.worker("workers").stdout
    assert dead in terminal(project, ["status", "--watch"], until=dead)
    (project.folder / "two.go").touch()
    until_state(project, runs, "completed")


def test_a_watched_status_outlives_its_server(idle: Project) -> None:
    """It says that the server is away, and goes on when it is back."""
    with idle.piped("status", "--watch", "--json") as command:
        first = json.loads(command.out.readline())
        assert first["states"] is not None
        assert first["error"] is None
        idle.worker("down")
        while (found := json.loads(command.out.readline()))["states"] is not None:
            pass
        assert set(found) == set(first)
        assert found["error"] or found["health"]["state"] == "unreachable"
        idle.worker("queues")
        while json.loads(command.out.readline())["states"] is None:
            pass
        command.process.send_signal(signal.SIGINT)
        assert "Traceback" not in command.err.read()


def test_the_status_tells_of_a_server_that_refuses_writes(idle: Project) -> None:
    """That is when it is looked at."""
    idle.send("nobody", 1)
    idle.client.config_set("maxmemory", "1mb")
    found = idle.json("status")
    assert found["health"]["state"] == "degraded"
    assert "the server refuses writes" in " ".join(found["health"]["reasons"])
    assert found["states"]["queued"] == 1
    assert "the server refuses writes" in idle.worker("status").stdout


def test_followed_events_outlive_the_server(idle: Project) -> None:
    """What happens when it is back is told, once."""
    first = idle.json("enqueue", "merge_conversation", "c")["message_id"]
    with idle.piped("events", "--follow", "--json") as command:
        idle.worker("cancel", first)
        assert json.loads(command.out.readline())["message_id"] == first
        idle.worker("down")
        assert "the server is away" in command.err.readline()
        second = idle.json("enqueue", "merge_conversation", "c")["message_id"]
        idle.worker("cancel", second)
        assert json.loads(command.out.readline())["message_id"] == second
        command.process.send_signal(signal.SIGINT)
        assert command.out.read() == ""
        assert "Traceback" not in command.err.read()
    assert command.process.returncode == 130


def test_an_action_wants_to_know_which_messages(idle: Project) -> None:
    """Nobody cancels everything by mistake."""
    sent = idle.json("enqueue", "merge_conversation", "c")["message_id"]
    for words in (
        ["cancel"],
        ["cancel", "--yes"],
        ["cancel", sent, "--all"],
        ["cancel", sent, "--queue", "cpu"],
        ["cancel", "--all", "--queue", "cpu"],
        ["cancel", "--queue", ""],
        ["cancel", "--queue", "cpu", "--actor", " "],
        ["cancel", ""],
        ["run-now"],
        ["dead", "replay"],
        ["dead", "purge"],
    ):
        refused(idle, *words)
    assert state_of(idle, sent) == "queued"
    assert idle.json("cancel", "--all")["ids"] == [sent]


def test_many_messages_are_not_changed_without_a_yes(idle: Project) -> None:
    """A dry run counts and lists them; without a terminal the remedy is named, on one it is asked."""
    sent = [idle.send("nobody", number) for number in range(11)]
    preview = idle.json("cancel", "--actor", "nobody", "--dry-run")
    assert (preview["count"], set(preview["ids"])) == (11, set(sent))
    assert "11 messages would be cancelled" in idle.worker("cancel", "--all", "--dry-run").stderr
    line = refused(idle, "cancel", "--actor", "nobody")
    assert "11 messages" in line
    assert "--yes" in line
    assert "nothing was done" in terminal(idle, ["cancel", "--all"], typed="n\n")
    assert idle.json("messages", "--state", "queued", "--count") == {"count": 11, "cursor": None}
    assert idle.json("cancel", *sent[:2])["count"] == 2
    idle.send("nobody", 11)
    idle.send("nobody", 12)
    assert "11 messages cancelled" in terminal(idle, ["cancel", "--all"], typed="y\n")
    for number in range(11):
        idle.send("nobody", number)
    assert idle.json("cancel", "--all", "--yes")["count"] == 11


def test_messages_that_cannot_be_changed_are_told_with_the_reason(idle: Project) -> None:
    """Exit code 1 for another state, and 2 for an id that nothing has, as everywhere; the others are changed."""
    one, two = (idle.send("nobody", number) for number in range(2))
    idle.worker("cancel", one)
    told = sorted([f"worker: {one}: cancelled", "worker: unknown-id: unknown"])
    tried = idle.worker("cancel", one, two, "unknown-id", "--dry-run", code=2)
    assert sorted(tried.stderr.splitlines()) == sorted(["1 message would be cancelled", *told])
    done = idle.worker("cancel", one, two, "unknown-id", code=2)
    assert done.stdout == "1 message cancelled\n"
    assert sorted(done.stderr.splitlines()) == told
    assert idle.worker("cancel", two, code=1).stderr == f"worker: {two}: cancelled\n"
    assert refused(idle, "show", "unknown-id", code=2)


def test_pages_follow_each_other(idle: Project) -> None:
    """Newest first, each message once."""
    sent = [idle.send("nobody", number) for number in range(5)]
    first = idle.json("messages", "--limit", "3")
    second = idle.json("messages", "--limit", "3", "--cursor", str(first["cursor"]))
    assert [one["id"] for one in first["messages"] + second["messages"]] == sent[::-1]
    assert second["cursor"] is None
    done = idle.worker("messages", "--limit", "3", "--arguments")
    assert f"--cursor {first['cursor']}" in done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert idle.json("messages", "--arguments")["messages"][0]["arguments"] == "4"


def test_an_export_holds_all_that_is_known(idle: Project) -> None:
    """A message a line, with its events; the arguments only on request; a file that exists is not touched."""
    sent = [idle.send("nobody", number) for number in range(3)]
    idle.worker("cancel", sent[0])
    file = idle.folder / "kept.jsonl"
    assert idle.json("export", "--to", str(file), "--state", "cancelled") == {"exported": 1, "file": str(file)}
    [found] = [json.loads(line) for line in file.read_text().splitlines()]
    assert (found["id"], found["state"]) == (sent[0], "cancelled")
    assert [event["state"] for event in found["events"]] == ["requested"]
    assert found["arguments"] is None
    assert "exists" in refused(idle, "export", "--to", str(file))
    assert len(file.read_text().splitlines()) == 1
    assert "/nowhere" in refused(idle, "export", "--to", "/nowhere/x.jsonl")
    lines = idle.worker("export", "--to", "-", "--arguments").stdout.splitlines()
    assert [json.loads(line)["arguments"] for line in lines] == ["2", "1", "0"]
    assert [one.name for one in idle.folder.iterdir() if "kept" in one.name] == ["kept.jsonl"]


def test_health_is_an_exit_code(project: Project, idle: Project) -> None:
    """0 healthy, 1 not: 2 is a command or a setting that cannot be used, as everywhere; with the reasons."""
    assert project.json("health") == {"state": "healthy", "reasons": [], "workers": 1}
    assert project.json("health", "--here")["workers"] == 1
    assert project.worker("health").stdout == "healthy  1 worker alive\n"
    assert idle.json("health", code=1)["state"] == "degraded"
    away = {"WORKER_REDIS_URL": "redis://me:hunter2@127.0.0.1:1/0"}
    assert idle.worker("health", code=2, variables={"WORKER_LOG_LEVEL": "loud"}).stdout == ""
    done = idle.worker("health", code=1, variables=away)
    assert done.stdout.startswith("unreachable")
    assert "hunter2" not in done.stdout
    assert "Traceback" not in done.stderr


def test_the_documented_liveness_probe_lets_only_an_unreachable_server_pass(project: Project, idle: Project) -> None:
    """Where no worker is alive it fails, and on a bad setting too."""
    page = (ROOT / "docs/how-to/when-something-is-wrong.md").read_text(encoding="utf-8")
    [probe] = [
        json.loads(line.partition(":")[2])
        for line in page.partition("livenessProbe:")[2].partition("```")[0].splitlines()
        if "command:" in line
    ]
    project.run(*probe)
    project.run(*probe, variables={"WORKER_REDIS_URL": "redis://127.0.0.1:1/0"})
    idle.run(*probe, code=1)
    project.run(*probe, code=1, variables={"WORKER_LOG_LEVEL": "loud"})


def test_the_doctor_says_what_to_do(project: Project, idle: Project) -> None:
    """Exit code 0 where there is no problem, else 1; each finding with its remedy."""
    assert project.json("doctor")["ok"] is True
    found = idle.json("doctor", code=1)
    [problem] = [one for one in found["findings"] if one["severity"] == "problem"]
    assert problem["name"] == "work"
    assert "worker up" in problem["remedy"]
    idle.client.config_set("maxmemory-policy", "allkeys-lru")
    out = idle.worker("doctor", code=1, variables={"WORKER_GRACE": "11m", "WORKER_MAX_RETRYS": "1"}).stdout
    for said in ("noeviction", "WORKER_GRACE=11m", "WORKER_MAX_RETRYS"):
        assert said in out
    assert not FRAMES.search(out)


COMPLETIONS = {
    ("worker ", 1): {"status", "messages", "dead", "cancel", "health", "run-now"},
    ("worker de", 1): {"delayed", "demo", "dead"},
    ("worker messages --state d", 3): {"delayed", "dead"},
    ("worker events --state st", 3): {"started"},
    ("worker dead re", 2): {"replay"},
    ("worker cancel --s", 2): {"--state", "--subject", "--since"},
}


@pytest.mark.parametrize(("words", "number"), COMPLETIONS, ids=str)
def test_the_shell_completes_commands_options_and_states(project: Project, words: str, number: int) -> None:
    """As bash asks for it."""
    asked = {"_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    found = set(project.run(WORKER, variables=asked).stdout.split())
    expected = COMPLETIONS[words, number]
    assert found >= expected if number == 1 and words == "worker " else found == expected


def test_completion_can_be_installed(project: Project) -> None:
    """For the shell that asks."""
    # The shell is that from which the command was begun; alone in its line, the command would take its place.
    out = project.run("bash", "-c", f"{WORKER} --show-completion; exit").stdout
    assert "_WORKER_COMPLETE=complete_bash" in out


def test_help_in_a_pipe_has_no_boxes(project: Project) -> None:
    """Neither the list of commands nor that of a command's options."""
    for words in ([], ["messages"], ["dead"], ["dead", "list"]):
        out = project.worker(*words, "--help").stdout
        assert "Usage: worker" in out
        assert not FRAMES.search(out)
        assert not COLOURS.search(out)


# ---------------------------------------------------------------------- whatever is typed

NASTY = [
    "",
    "\x00",
    "\x1f",
    "a\tb\nc",
    "\udce4",
    "\x1b[2J",
    "9" * 400 + "d",
    "1" * 2_000 + "x",
    "999999999d",
    "9999-12-31",
    "0001-01-01",
    "9999-12-31T23:59:59.999999-23:59",
    "0001-01-01T00:00+23:59",
    "2h",
    "a=b",
    "=",
    "\x1f=\t",
    "failed",
    "lost",
    "-1",
    "--all",
    "99999999999999999999",
    "x" * 20_000,
]
TEXT = st.sampled_from(NASTY) | st.text(st.characters(codec=None, categories=None), max_size=20)
FILTERS = ["--state", "--actor", "--queue", "--subject", "--error", "--since", "--until"]
COMMANDS = [
    ("messages",),
    ("messages", "--count"),
    ("events",),
    ("dead", "list"),
    ("dead", "purge", "--dry-run"),
    ("cancel", "--dry-run"),
    ("run-now", "--dry-run", "--json"),
    ("export", "--to", "-"),
]
OPTION = st.tuples(st.sampled_from(FILTERS), TEXT).map(lambda one: f"{one[0]}={one[1]}")
ODD = st.tuples(st.sampled_from(["--limit", "--cursor", "--nonsense"]), TEXT).map(lambda one: f"{one[0]}={one[1]}")
LINE = st.tuples(st.sampled_from(COMMANDS), st.lists(OPTION | ODD | OPTION, max_size=4)).map(
    lambda one: [*one[0], *one[1]]
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a few messages, whose settings are those of this process."""
    made = Project(tmp_path_factory.mktemp("fuzzed"))
    for number in range(3):
        made.send("nobody", number)
    put_in_force(made.settings)
    with logging_put_back():
        yield made
    put_in_force(None)
    made.down()


def typed(words: list[str]) -> tuple[int, str]:
    """The exit code of a command line in this process, and its complaints."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["worker", *words])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    code: Any = ended.value.code
    return int(code or 0), "\n".join(
        line for line in err.getvalue().split("\n") if line.startswith(("worker:", "Trac"))
    )


@settings(max_examples=1_500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=LINE)
def test_whatever_is_typed_is_answered_or_refused_in_one_line(fuzzed: Project, words: list[str]) -> None:
    """Exit code 0, or 2 with one line; never a traceback."""
    code, said = typed(words)
    assert (code, len(said.splitlines())) in {(0, 0), (2, 1)}, said


@pytest.mark.parametrize(
    "words",
    [
        ["messages", "--actor", "\udce4\x1f\t"],
        ["messages", "--state", "\x1b[31m\n\udce4"],
        ["events", "--since", "9" * 400 + "d"],
        ["dead", "--since", "0001-01-01"],
        ["messages", "--since", "9999-12-31", "--json"],
        ["cancel", "--dry-run", "--subject", "\x1f=\x1f", "--error", "%s%n"],
        ["status", "--since", "999999999d"],
        ["\udce4\n\x1b[31m"],
    ],
    ids=ascii,
)
def test_odd_words_end_a_real_process_well(fuzzed: Project, words: list[str]) -> None:
    """Exit code 0, or 2 with one line without control characters."""
    done = subprocess.run(
        [WORKER, *words],
        cwd=fuzzed.elsewhere,
        env=fuzzed.environment | {"WORKER_LOG_LEVEL": "error"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = done.stderr.decode()
    complaints = [line for line in said.splitlines() if line != "0 messages would be cancelled"]
    assert (done.returncode, len(complaints)) in {(0, 0), (2, 1)}, said
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
