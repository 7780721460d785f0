"""The names under which errors are told: in the history, in logs and in tracebacks."""

from __future__ import annotations

import ast
import builtins
import pickle
from pathlib import Path

import pytest
from dramatiq.errors import ConnectionClosed

import worker
from worker.broker import sending
from worker.errors import ServerRefused, ServerUnreachable
from worker.history.events import ErrorInfo, State, StatusEvent
from worker.history.filters import EventFilter


@pytest.mark.parametrize(
    ("raised", "name"), [(sending.UNREACHABLE, "ServerUnreachable"), (sending.REFUSED, "ServerRefused")]
)
def test_a_sender_raises_errors_with_public_names_that_dramatiq_knows_too(
    raised: type[ServerUnreachable], name: str
) -> None:
    """They are told and found as `worker.errors.ServerUnreachable`, and another process can read them."""
    error = raised("no answer")
    assert isinstance(error, ConnectionClosed)
    assert isinstance(error, ServerRefused) == (name == "ServerRefused")
    told = ErrorInfo.of(error)
    assert told.type == f"worker.errors.{name}"
    assert told.traceback == f"worker.errors.{name}: no answer\n"
    event = StatusEvent(event="ping.failed", state=State.FAILED, error=told)
    assert EventFilter(error=name).matches(event)
    assert str(pickle.loads(pickle.dumps(error))) == "no answer"


def test_no_error_of_the_package_has_a_private_name() -> None:
    """A person who reads one can look it up."""
    classes = [
        node
        for file in Path(worker.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    errors = {one.__name__ for one in vars(builtins).values() if isinstance(one, type) and issubclass(one, Exception)}
    found: set[str] = set()
    while more := {one.name for one in classes if bases(one) & errors} - errors:
        errors |= more
        found |= more
    assert "RetryLater" in found
    assert [name for name in found if name.startswith("_")] == []


def bases(one: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in one.bases}
