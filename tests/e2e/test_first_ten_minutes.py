"""What a person meets in the first ten minutes with a project of ten lines: each answer is one line that helps."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import BIN, Project
from tests.support.waiting import wait_until

CHECKS = """
from worker import actor

@actor(subject=("port",))
async def check_port(port: int) -> None:
    pass
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a server, and a module of ten lines in its folder."""
    made = Project(tmp_path_factory.mktemp("project"), WORKER_LOG_FORMAT="json")
    (made.elsewhere / "checks.py").write_text(CHECKS)
    made.client.ping()
    yield made
    made.down()


def said(text: str) -> list[str]:
    """What the lines of a log say."""
    return [json.loads(line)["event"] for line in text.splitlines() if line.startswith("{")]


def python(project: Project, code: str, code_of_exit: int = 1) -> str:
    """Runs Python in the project's folder; the last line of its standard error."""
    done = project.run(sys.executable, "-c", code, code=code_of_exit)
    return done.stderr.strip().splitlines()[-1]


def test_a_misspelt_variable_is_told_by_every_command_with_the_right_name(project: Project) -> None:
    """Also one in the project's `.env`, and also where the command answers with JSON; those like no setting follow."""
    (project.elsewhere / ".env").write_text("WORKER_ACTOR=checks\n")
    try:
        variables = {"WORKER_REDIS_ULR": "redis://host", "WORKER_X": "1", "WORKER_NOSUCHTHING": "1"}
        done = project.worker("queues", "--json", variables=variables)
    finally:
        (project.elsewhere / ".env").unlink()
    assert json.loads(done.stdout) == {"queues": []}
    assert said(done.stderr)[:3] == [
        "WORKER_ACTOR in .env names no setting: write WORKER_ACTORS, or unset it",
        "WORKER_REDIS_ULR names no setting: write WORKER_REDIS_URL, or unset it",
        "WORKER_NOSUCHTHING, WORKER_X name no settings: unset them, or see `worker config` for the names",
    ]


def test_workers_that_are_started_together_tell_of_a_variable_once(project: Project) -> None:
    """`worker up` has told of it, so its workers do not."""
    project.environment |= {"WORKER_CONCURENCY": "7", "WORKER_ACTORS": "checks"}
    log = project.folder / "worker.log"
    try:
        with project.background(str(BIN / "worker"), "up"):
            wait_until(lambda: log.exists() and "ready for action" in log.read_text())
    finally:
        del project.environment["WORKER_CONCURENCY"], project.environment["WORKER_ACTORS"]
    told = [line for line in said(log.read_text()) if line.startswith("WORKER_CONCURENCY")]
    assert told == ["WORKER_CONCURENCY names no setting: write WORKER_CONCURRENCY, or unset it"]


def test_a_worker_tells_of_a_misspelt_variable_when_it_begins(project: Project) -> None:
    """It runs with the default in the meantime."""
    project.environment["WORKER_CONCURENCY"] = "7"
    log = project.folder / "dramatiq.log"
    try:
        with project.background(str(BIN / "dramatiq"), "checks", "--processes", "1", "--threads", "1"):
            wait_until(lambda: "ready for action" in log.read_text())
    finally:
        del project.environment["WORKER_CONCURENCY"]
    line = "WORKER_CONCURENCY names no setting: write WORKER_CONCURRENCY, or unset it"
    wait_until(lambda: line in said(log.read_text()))


def test_what_kubernetes_sets_for_its_services_is_no_setting(project: Project) -> None:
    """`WORKER_WEB_PORT=tcp://…` of a service `worker-web` is neither refused nor taken; the rest is passed over."""
    address = "tcp://10.0.0.1:80"
    variables = {
        "WORKER_WEB_PORT": address,
        "WORKER_WEB_SERVICE_HOST": "10.0.0.1",
        "WORKER_WEB_SERVICE_PORT_HTTP": "80",
        "WORKER_SERVICE_HOST": "10.0.0.1",
        "WORKER_SERVICE_PORT": "80",
        "WORKER_PORT": address,
        "WORKER_PORT_80_TCP": address,
        "WORKER_PORT_80_TCP_ADDR": "10.0.0.1",
        "WORKER_PORT_53_UDP_PROTO": "udp",
    }
    done = project.worker("config", "--json", variables=variables)
    assert json.loads(done.stdout)["WORKER_WEB_PORT"] == {"value": "8020", "from": "default"}
    assert done.stderr == ""


def test_without_worker_actors_the_advice_is_to_name_ones_own_modules(project: Project) -> None:
    """Not to install the built-in actors, which would not help."""
    line = "WORKER_ACTORS is not set: name the modules of your actors, such as WORKER_ACTORS=checks in .env"
    assert project.worker("enqueue", "check_port", "1", code=2).stderr.strip().endswith(line)
    without_extra = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'aiosqlite' else find(name, *rest)\n"
        "import sys; sys.argv = ['worker', 'enqueue', 'check_port', '1']\n"
        "from worker.cli import main; main()"
    )
    assert python(project, without_extra, 2).startswith(f"worker: {line} (the built-in actors: pip install ")
    named = {"WORKER_ACTORS": "checks"}
    assert "check_port enqueued as" in project.worker("enqueue", "check_port", "1", variables=named).stdout


@pytest.mark.parametrize("words", [("up",), ("enqueue", "check_port", "1")])
def test_a_file_with_the_name_of_the_package_is_named_with_the_remedy(project: Project, words: tuple[str, ...]) -> None:
    """Workers that start in its folder would find it in the place of the package."""
    with ones_own_worker(project) as file:
        done = project.worker(*words, code=2, variables={"WORKER_ACTORS": "checks"})
        assert done.stderr.strip() == (
            f"worker: {file} hides the package `worker`, which has the same name, from Python: rename it"
        )


def test_the_doctor_finds_a_file_with_the_name_of_the_package(project: Project) -> None:
    """It is a problem, for no worker can start there."""
    with ones_own_worker(project) as file:
        found = json.loads(project.worker("doctor", "--json", code=1).stdout)["findings"]
    [folder] = [one for one in found if one["name"] == "folder"]
    assert (folder["severity"], folder["remedy"]) == ("problem", "rename it")
    assert folder["found"].startswith(str(file))


@contextlib.contextmanager
def ones_own_worker(project: Project) -> Iterator[Path]:
    file = project.elsewhere / "worker.py"
    file.write_text(CHECKS)
    try:
        yield file
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nosuchlib", "ModuleNotFoundError: No module named 'nosuchlib', at {file}:1"),
        ("\n\nwork(", "SyntaxError: '(' was never closed (broken.py, line 3), at {file}:3"),
        (
            "from worker import actor\n\nactor(concurrency=0)(print)",
            "ValueError: concurrency=0: write a number from 1, at {file}:3",
        ),
        ("\nundefined()", "NameError: name 'undefined' is not defined, at {file}:2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(project: Project, code: str, said: str) -> None:
    """In one line, without the way that led there."""
    file = project.elsewhere / "broken.py"
    file.write_text(code)
    done = project.worker("enqueue", "x", code=2, variables={"WORKER_ACTORS": "broken"})
    assert done.stderr == f"worker: WORKER_ACTORS=broken: broken cannot be imported: {said.format(file=file)}\n"


def test_an_actor_that_is_called_in_a_loop_says_how_it_is_enqueued(project: Project) -> None:
    """Nothing runs, and nothing is written into the history, for nothing was tried."""
    last = python(project, "import asyncio, checks\nasync def main(): checks.check_port(8000)\nasyncio.run(main())")
    assert last == (
        "worker.errors.RunningLoopError: check_port was called in a running event loop, which it would block: "
        "`await check_port.asend(…)` enqueues it; to run it here, await its service"
    )


def test_an_actor_that_is_declared_again_says_how_the_first_is_forgotten(project: Project) -> None:
    """As when a cell of a notebook runs twice; what the line says to do works."""
    again = f"cell = {CHECKS!r}; exec(cell); exec(cell)"
    last = python(project, again)
    assert last == (
        "worker.errors.DeclaredTwice: an actor 'check_port' was declared before, in __main__: give one of the two "
        "another name; where a cell of a notebook runs again, run `dramatiq.get_broker().actors.pop('check_port')` "
        "before it"
    )
    remedy = last.split("`")[1]
    forgotten = f"import dramatiq; cell = {CHECKS!r}; exec(cell); {remedy}; exec(cell)"
    subprocess.run([sys.executable, "-c", forgotten], cwd=project.elsewhere, env=project.environment, check=True)
