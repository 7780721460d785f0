"""What a program loads when it starts: nothing that it does not use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import worker

LOADED = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
%s
after = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
after = {name for name in after if not name.startswith("_sysconfigdata")}
print(*sorted(after), file=sys.stderr)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "worker"), file=sys.stderr)
print("asyncio" in sys.modules, file=sys.stderr)
"""


def loaded(code: str) -> tuple[list[str], list[str], bool]:
    """What a fresh process has loaded after this code: packages that are not Python's, our modules, and asyncio."""
    done = subprocess.run([sys.executable, "-c", LOADED % code], capture_output=True, text=True, check=True, timeout=60)
    packages, ours, has_asyncio = done.stderr.splitlines()
    return packages.split(), ours.split(), has_asyncio == "True"


def test_importing_the_package_loads_nothing_else() -> None:
    """A program pays for what it uses."""
    assert loaded("import worker") == (["worker"], ["worker"], False)


def test_the_bridge_comes_without_dramatiq_and_redis() -> None:
    """A program that only calls services needs neither."""
    packages, _, _ = loaded("from worker import run_async_in_new_loop\nassert run_async_in_new_loop")
    assert not {"dramatiq", "redis"} & set(packages)


def test_help_loads_the_table_of_commands_and_what_draws_it() -> None:
    """`worker --help` in a pipe: no settings, no client of the server, no asyncio."""
    packages, ours, has_asyncio = loaded("from worker.cli import app\napp(['--help'], standalone_mode=False)")
    assert packages == ["annotated_doc", "shellingham", "typer", "worker"]
    assert ours == [
        "worker",
        "worker.cli",
        "worker.cli.app",
        "worker.cli.exit_codes",
        "worker.errors",
        "worker.ground",
        "worker.ground.extras",
        "worker.ground.texts",
    ]
    assert not has_asyncio


# A look at the server's health runs a coroutine, as an actor would.
LISTS = {"messages": set(), "queues": {"loops", "operations", "threads"}, "status": {"loops", "operations", "threads"}}


@pytest.mark.parametrize(("command", "further_rooms"), LISTS.items())
def test_a_list_loads_the_client_and_the_settings_and_no_more(command: str, further_rooms: set[str]) -> None:
    """In a pipe, nothing that draws, logs, serves or runs messages is loaded for nothing; nor are others' settings."""
    code = f"""
import os
from worker.cli import app
from worker.errors import ServerUnreachable
os.environ["WORKER_REDIS_URL"] = "unix:///nowhere"
try:
    app(["{command}"], standalone_mode=False)
except ServerUnreachable:
    pass
"""
    packages, ours, _ = loaded(code)
    settings = {"annotated_types", "dotenv", "pydantic", "pydantic_core", "pydantic_settings", "typing_inspection"}
    client = {"hiredis", "redis"}
    # Where they are installed: OpenTelemetry loads psutil.
    of_these = {"cryptography", "opentelemetry", "org", "psutil", "typing_extensions", "xxhash"}
    assert set(packages) <= settings | client | of_these | {"annotated_doc", "shellingham", "typer", "worker"}
    rooms = {name.split(".")[1] for name in ours if "." in name}
    assert rooms <= {"cli", "errors", "ground", "history", "server", "settings"} | further_rooms


@pytest.mark.parametrize("name", worker.__all__)
def test_every_public_name_is_there_when_it_is_asked_for(name: str) -> None:
    """It is what its module calls so, at the first use and at the next."""
    first = getattr(worker, name)
    assert first is getattr(worker, name)
    assert first.__name__ == name


def test_public_modules_are_there_without_an_import_of_their_own() -> None:
    """`import worker` is enough for `worker.errors.Fatal`."""
    code = "import worker\nassert worker.errors.Fatal is worker.Fatal\nassert worker.testing.stub_worker"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_name_stays_itself_after_the_import_of_any_module() -> None:
    """No module is called as a public name is: Python would put the module in its place."""
    modules = {file.stem for file in Path(worker.__file__).parent.iterdir()}
    assert not modules & set(worker.__all__)


def test_what_is_not_there_is_refused_as_by_any_module() -> None:
    """`hasattr` and misspelt imports work as everywhere."""
    assert not hasattr(worker, "nothing")
    with pytest.raises(AttributeError, match="module 'worker' has no attribute 'nothing'"):
        worker.nothing  # noqa: B018


def test_type_checkers_and_python_load_names_from_the_same_places() -> None:
    """What mypy reads, what Python loads, and what `from worker import *` brings."""
    [block] = [node for node in ast.parse(Path(worker.__file__).read_text()).body if isinstance(node, ast.If)]
    read = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert read == worker._HOMES
    assert sorted(read) == worker.__all__ == sorted(set(dir(worker)) & set(worker.__all__))
