"""One table of filters: terminal, query, body, page and documentation know the same names."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
from starlette.datastructures import QueryParams

from worker.cli.app import app
from worker.history.filters import EVENT_FIELDS, MESSAGE_FIELDS, EventFilter, FilterField, MessageFilter
from worker.settings import Settings
from worker.web import create_app
from worker.web.asked import Asked

Table = tuple[FilterField, ...]

COMMANDS: dict[tuple[str, ...], Table] = {
    ("messages",): MESSAGE_FIELDS,
    ("export",): MESSAGE_FIELDS,
    ("cancel",): MESSAGE_FIELDS,
    ("run-now",): MESSAGE_FIELDS,
    ("dead", "list"): MESSAGE_FIELDS,
    ("dead", "replay"): MESSAGE_FIELDS,
    ("dead", "purge"): MESSAGE_FIELDS,
    ("events",): EVENT_FIELDS,
}
QUESTIONS = {
    "/api/messages": MESSAGE_FIELDS,
    "/api/messages/count": MESSAGE_FIELDS,
    "/api/events": EVENT_FIELDS,
}
NOT_FILTERS = {"limit", "cursor"}


def names(table: Table) -> list[str]:
    return [field.name for field in table]


@pytest.mark.parametrize(("words", "table"), COMMANDS.items())
def test_a_command_has_the_options_of_the_table(words: tuple[str, ...], table: Table) -> None:
    """Each with its help, before the options of its own."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.get_command(None, word)
    options = [option for option in command.params if option.name in names(table)]
    assert [option.name for option in options] == names(table)
    assert [option.opts for option in options] == [[f"--{name.replace('_', '-')}"] for name in names(table)]
    assert all(option.help.startswith(field.help) for option, field in zip(options, table, strict=True))
    assert all(option.multiple for option in options)  # of two texts for one field, none is silently dropped


@pytest.mark.parametrize(("path", "table"), QUESTIONS.items())
def test_a_question_has_the_query_parameters_of_the_table(path: str, table: Table, settings: Settings) -> None:
    """Each with its help."""
    described = create_app(settings).openapi()["paths"][path]["get"]["parameters"]
    found = {one["name"]: one["description"] for one in described if one["name"] not in NOT_FILTERS}
    assert found == {field.name: field.help for field in table}


def test_a_body_has_the_fields_of_the_table(settings: Settings) -> None:
    """That of an action on messages."""
    properties = create_app(settings).openapi()["components"]["schemas"]["Filter"]["properties"]
    assert {name: one["description"] for name, one in properties.items()} == {
        field.name: field.help for field in MESSAGE_FIELDS
    }


@pytest.mark.parametrize("table", [MESSAGE_FIELDS, EVENT_FIELDS])
def test_a_page_reads_the_fields_of_the_table(table: Table) -> None:
    """What is empty asks for nothing, and so does the page's cursor; what is not in the table stays, to be refused."""
    url = [(field.name, f"{field.name} {number}") for field in table for number in range(1, field.is_list + 2)]
    asked = Asked.read(table, QueryParams([*url, ("cursor", "5"), (names(table)[0], " ")]))
    values = {field.name: [f"{field.name} 1", f"{field.name} 2"][: field.is_list + 1] for field in table}
    assert asked.given == {name: tuple(texts) for name, texts in values.items()}
    assert asked.body() == {
        field.name: values[field.name][:] if field.is_list else values[field.name][0] for field in table
    }
    assert Asked.read(table, QueryParams(asked.query())) == asked
    assert Asked.read(table, QueryParams(dict.fromkeys(names(table), ""))).given == {}
    assert Asked.read(table, QueryParams([("actor", "a"), ("actor", "b"), ("colour", "red")])).given == {
        "actor": ("a", "b"),
        "colour": ("red",),
    }


def test_the_filters_in_python_have_the_fields_of_the_table() -> None:
    """A message's `states` are several."""
    assert [part.name.replace("states", "state") for part in fields(MessageFilter)] == names(MESSAGE_FIELDS)
    assert [part.name for part in fields(EventFilter)] == names(EVENT_FIELDS)


def test_the_reference_has_the_fields_of_the_table() -> None:
    """A row for each option, in the order of the table."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
    section = page.read_text(encoding="utf-8").split("\n## Filters\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `--([a-z-]+) ", section, flags=re.MULTILINE)
    assert rows == [*(name.replace("_", "-") for name in names(MESSAGE_FIELDS)), "message-id"]
