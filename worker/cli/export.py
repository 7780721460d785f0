"""`worker export`: writes messages to a file, to keep them longer than the history does."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from worker.cli.options import AsJson, WithArguments, filters_messages, open_server
from worker.cli.output import json_line, print_json, print_text
from worker.errors import ConfigurationError
from worker.ground.texts import counted
from worker.history.as_json import ExportedMessage, Shown
from worker.history.filters import MessageFilter
from worker.history.query import all_messages


@filters_messages
def export(
    wanted: MessageFilter,
    to: Annotated[Path, typer.Option(help="The file to write, which must not exist; -: standard output.")],
    arguments: WithArguments = False,
    as_json: AsJson = False,
) -> None:
    """Write messages with their history to a file, one JSON object on each line."""
    to_standard_output = str(to) == "-"
    if not to_standard_output and to.exists():
        raise ConfigurationError(f"--to {to}: it exists; remove it, or name another file")
    client = open_server()
    shown = Shown(arguments=arguments, tracebacks=True)
    found = (ExportedMessage.of(one, shown) for one in all_messages(client, wanted))
    if to_standard_output:
        for one in found:
            print_json(one)
        return
    with _complete_or_not_at_all(to) as file:
        count = _write(file, found)
    if as_json:
        print_json({"exported": count, "file": str(to)})
    else:
        print_text(f"{counted(count, 'message')} exported to {to}")


@contextlib.contextmanager
def _complete_or_not_at_all(to: Path) -> Iterator[IO[str]]:
    """A file that gets its name when it is complete and on the disk."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=to.parent, prefix=f".{to.name}.", encoding="utf-8", delete=False
        ) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                to.hardlink_to(file.name)  # unlike a rename it refuses what somebody has made meanwhile
            finally:
                Path(file.name).unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigurationError(f"--to {to}: it exists; remove it, or name another file") from error
    except OSError as error:
        raise ConfigurationError(f"--to {to}: {error.strerror or error}") from error


def _write(file: IO[str], found: Iterable[ExportedMessage]) -> int:
    count = 0
    for count, one in enumerate(found, 1):  # noqa: B007 - the last number is used
        file.write(json_line(one) + "\n")
    return count
