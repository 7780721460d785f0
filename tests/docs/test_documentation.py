"""The documentation says what is so: code runs, commands exist, tables are complete, links lead somewhere."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import dramatiq.broker
import dramatiq.cli
import pytest
import typer.main

import worker
import worker.errors
import worker.testing
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, command_lines, links, name_of, names_of_links, prose
from tests.docs.settings_table import PAGE as SETTINGS_PAGE
from tests.docs.settings_table import tables
from worker.cli.app import app
from worker.history import overview, query
from worker.history.events import State, StatusEvent
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.testing import RecordedEvents, recorded_events, stub_worker

REFERENCE = ROOT / "docs" / "reference"
ASSIGNMENT = re.compile(r"\w+=")
SENDS = re.compile(r"\.a?send\w*\(")
FILE_NAME = re.compile(r"# (\w+)\.py\n")
WIDTH = 120
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
NOT_PUBLISHED = re.compile(r"git clone|pip install (.* )?dramatiq-bridge\b")

# What an example may raise on purpose; anything else that comes out of one is a mistake in the page.
ON_PURPOSE = re.compile(r"ConnectionRefusedError|worker\.errors\.\w+")


@pytest.fixture
def program(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An empty program of its own: its main module, and no broker yet."""
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    main = ModuleType("__main__")
    with recorded_events():
        yield main


class _SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_SilentHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def surroundings(
    request: pytest.FixtureRequest, page: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What the page's examples read from the environment: real servers, started where a page asks for them."""
    text = page.read_text(encoding="utf-8")
    # A file: in memory, tasks that connect at once get a database each, of which SQLAlchemy forgets one.
    monkeypatch.setenv("ORDERS_URL", "sqlite+aiosqlite:///orders.db")
    with contextlib.ExitStack() as stack:
        if '"CACHE_URL"' in text:
            server: EmbeddedServer = request.getfixturevalue("valkey")
            monkeypatch.setenv("CACHE_URL", f"unix://{server.socket}")
        if "from worker.server.connection import" in text:
            request.getfixturevalue("valkey")
            monkeypatch.setenv("WORKER_DATA_DIR", str(settings.data_dir))
        if '"API_URL"' in text:
            monkeypatch.setenv("API_URL", stack.enter_context(_web_server(Path.cwd())))
        yield


def _run(block: Block, page: Path, main: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Empty lines in front, so that a traceback shows the line of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True)
    exec(code, main.__dict__)
    if named := FILE_NAME.match(block.code):
        monkeypatch.setitem(sys.modules, named[1], main)


def _check(events: RecordedEvents) -> None:
    errors = [event.error for event in events if event.error is not None]
    assert [error.traceback for error in errors if not ON_PURPOSE.fullmatch(error.type)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_code_of_a_page_runs(
    page: Path, program: ModuleType, surroundings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block, in order, in one program, on a real worker where it sends; and the tests that it shows pass."""
    for block in blocks(page, "python"):
        if not block.runs:
            continue
        tests_before = _tests(program)
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(stub_worker()) if SENDS.search(block.code) else None
            _run(block, page, program, monkeypatch)
            if running is not None:
                running.join()
                _check(running.events)
        for name in _tests(program) - tests_before:
            getattr(program, name)()


def _tests(main: ModuleType) -> set[str]:
    return {name for name, value in vars(main).items() if name.startswith("test_") and inspect.isfunction(value)}


def test_few_blocks_are_not_run() -> None:
    """Only what needs packages that are not ours, and what is shown to be wrong."""
    not_run = [name_of(page) for page in PAGES for block in blocks(page, "python") if not block.runs]
    made_into_projects = [*["docs/how-to/django.md"] * 3, "docs/how-to/flask.md"]  # by `tests/compat`
    assert not_run == ["docs/explanation/why-a-bridge.md", *made_into_projects, "docs/how-to/schedule.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=name_of)
def test_the_commands_of_a_page_parse(page: Path) -> None:
    """`worker` and `dramatiq` know the commands, options and arguments."""
    for line in command_lines(page):
        for words in line:
            while words and ASSIGNMENT.match(words[0]):
                del words[0]
            name, *arguments = words
            if name == "worker":
                _parse(arguments)
            elif name == "dramatiq":
                dramatiq.cli.make_argument_parser().parse_args(arguments)


def _parse(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "get_command"):
        assert arguments, "a command is missing"
        name, *arguments = arguments
        context = command.make_context("worker", [name], parent=context)
        command = command.get_command(context, name)
        assert command is not None, f"no command {name!r}"
    command.make_context(command.name, arguments, parent=context)


def _commands(command: Any, path: tuple[str, ...] = ("worker",)) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    context = command.make_context("worker", [], resilient_parsing=True)
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize(("name", "command"), list(_commands(typer.main.get_command(app))), ids=str)
def test_every_command_and_option_is_in_the_reference(name: str, command: Any) -> None:
    """Each command has a section of its own, which names each of its options and arguments."""
    sections = re.split(r"^## ", (REFERENCE / "commands.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    [section] = [section for section in sections if section.startswith(f"{name}\n")]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    options -= {"--help", "--install-completion", "--show-completion"}
    assert "--json" in options
    assert {option for option in options if f"`{option}" not in section} == set()
    arguments = {one.name for one in command.params if not one.opts[0].startswith("-")}
    assert {argument for argument in arguments if argument.upper() not in section} == set()


def test_every_setting_is_in_the_reference() -> None:
    """The tables are what the settings say; `python -m tests.docs.settings_table` writes them."""
    assert tables() in SETTINGS_PAGE.read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference() -> None:
    """Those of `worker` and of `worker.testing`."""
    text = (REFERENCE / "names.md").read_text(encoding="utf-8")
    names = [*worker.__all__, *worker.testing.__all__]
    assert [name for name in names if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("module", [overview, query], ids=["overview", "query"])
def test_every_question_is_in_the_reference(module: ModuleType) -> None:
    """In the table of the module that makes it."""
    sections = (REFERENCE / "history.md").read_text(encoding="utf-8").split("\n## ")
    (section,) = (one for one in sections if one.startswith(f"`{module.__name__}`"))
    makers = inspect.getmembers(module, inspect.isfunction)
    questions = [
        name
        for name, made in makers
        if made.__module__ == module.__name__ and made.__annotations__["return"].startswith("Question[")
    ]
    assert len(questions) > 1
    assert [name for name in questions if f"\n| `{name}(" not in section] == []


def test_every_error_is_in_the_reference() -> None:
    """The page's tree is that of `worker.errors`."""
    tree = "\n".join(block.code for block in blocks(REFERENCE / "errors.md", "text"))
    errors = [
        name for name, value in vars(worker.errors).items() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert [name for name in errors if not re.search(rf"\b{name}\b", tree)] == []


def test_every_state_and_field_of_an_event_is_in_the_reference() -> None:
    """Whoever reads `worker events --json` finds each of its keys explained."""
    text = (REFERENCE / "events.md").read_text(encoding="utf-8")
    words = [*State, *(part.name for part in fields(StatusEvent))]
    assert [word for word in words if f"`{word}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links to other pages, to their headings and to files."""
    for link in links(page):
        if "://" in link and not link.startswith(REPOSITORY):
            continue
        path, _, anchor = link.partition("#")
        if path.startswith(REPOSITORY):
            folder, path = ROOT, path.removeprefix(REPOSITORY).partition("/main/")[2]
        else:
            folder = page.parent
        target = (folder / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_can_be_read_anywhere() -> None:
    """A package index shows it without the files around it: its links and pictures have whole addresses."""
    readme = ROOT / "README.md"
    found = links(readme)
    assert any(one.endswith("/raw/main/docs/images/overview.svg") for one in found)
    assert [one for one in found if not one.startswith("https://")] == []
    defined, used = names_of_links(readme)
    assert defined == used


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_fetched_that_is_not_published(page: Path) -> None:
    """The package is installed from a checkout; after that an index has all that an extra adds."""
    assert [line for line in page.read_text().splitlines() if NOT_PUBLISHED.search(line)] == []


def test_the_index_names_every_page() -> None:
    """No page is left for readers to find by chance."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {name_of(page) for page in PAGES if (ROOT / "docs") in page.parents} - {
        name_of(page) for page in linked
    } == {"docs/README.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    """Paragraphs fit an editor beside another; tables, blocks of code and addresses are as wide as they must be."""
    lines = prose(page).splitlines()
    as_wide_as_it_must_be = re.compile(r"\||<!--|\[[^]]+\]: \S+$")
    assert [line for line in lines if len(line) > WIDTH and not as_wide_as_it_must_be.match(line)] == []
