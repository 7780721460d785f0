"""`dramatiq` itself with our broker: without a home folder, with the program's own logging, and while files change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import BIN, Project
from tests.support.waiting import wait_until

NO_HOME = """
import pwd

def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = nobody
"""

OWN_LOGGING = """
import logging
from worker import actor

logging.basicConfig(filename="own.log", format="own %(name)s %(message)s", level="INFO", force=True)

@actor
async def greet() -> None:
    logging.getLogger("greet").info("hello")
"""

WATCHED = """
from worker import actor

@actor
async def first() -> None: ...
"""

LAUNCHED = [str(BIN / "dramatiq"), "--processes", "1", "--threads", "1"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project."""
    made = Project(tmp_path)
    yield made
    made.down()


def log_of(project: Project) -> str:
    file = project.folder / "dramatiq.log"
    return file.read_text(errors="replace") if file.exists() else ""


def test_the_built_in_actors_need_no_home_folder(project: Project) -> None:
    """As in a container whose user is in no file: they are imported, and so is the model."""
    (project.elsewhere / "sitecustomize.py").write_text(NO_HOME)
    environment = {name: value for name, value in project.environment.items() if name != "HOME"}
    environment["PYTHONPATH"] = str(project.elsewhere)
    code = "from pathlib import Path; import worker.tasks\ntry: Path.home()\nexcept RuntimeError: print('no home')"
    words, where = [sys.executable, "-c", code], project.elsewhere
    done = subprocess.run(words, env=environment, cwd=where, capture_output=True, text=True, check=False)
    assert done.stdout == "no home\n", done.stderr


@pytest.mark.parametrize("skips", [True, False])
def test_a_programs_own_logging_stays(project: Project, skips: bool) -> None:
    """With `--skip-logging` and without: its lines and ours go where it says, and nowhere else."""
    (project.elsewhere / "own.py").write_text(OWN_LOGGING)
    own = project.elsewhere / "own.log"
    with project.background(*LAUNCHED, "own", *(["--skip-logging"] if skips else [])):
        project.send("greet")
        wait_until(lambda: own.exists() and "own greet hello" in own.read_text())
    assert "own worker.server.pools using the embedded Valkey data=" in own.read_text()
    assert "hello" not in log_of(project)
    assert "using the embedded Valkey" not in log_of(project)


def test_workers_begin_anew_when_a_file_changes(project: Project) -> None:
    """With the pattern that the how-to names: the one of Dramatiq itself matches nothing since watchdog 7."""
    watched = project.elsewhere / "watched.py"
    watched.write_text(WATCHED)
    with project.background(*LAUNCHED, "watched", "--watch", ".", "--watch-include", "**/*.py"):
        wait_until(lambda: "ready for action" in log_of(project))
        watched.write_text(WATCHED.replace("first", "second"))
        wait_until(lambda: log_of(project).count("ready for action") == 2)
        message_id = project.send("second")
        assert project.ended(message_id)[-1].state.value == "completed"
