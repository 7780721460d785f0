"""Tracebacks as texts: whole and within bounds to be kept, and to be read from where a program's own code begins.

What is kept is never shortened for a reader: every frame can be shown on request.
"""

from __future__ import annotations

import functools
import itertools
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from worker.ground.secrets import mask_secrets

_PACKAGE = Path(__file__).parents[1]

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'([ |]*)File "(.*)", line \d+')
_OURS = re.compile(r".*[/\\]worker[/\\](.+\.py)")
_BETWEEN = re.compile(
    r".*[/\\]dramatiq[/\\](worker|actor|asyncio|threading)\.py"
    r"|.*[/\\]python3\.\d+[/\\](asyncio[/\\]\w+|concurrent[/\\]futures[/\\]\w+|contextlib|threading)\.py"
    r"|uvloop[/\\]loop\.pyx"
)
"""Frames of others through which ours call the code of a program."""

_DOORS = ("attempts", "loops", "broker/actor_body.py", "broker/loop_runner.py")
"""The modules of ours that call the code of a program."""

_LEFT_OUT = "  …\n"
_FEWEST = 200


class _Frame(NamedTuple):
    """A frame in a text: its margin, its file, and its lines."""

    margin: str
    file: str
    lines: list[str]


def whole(error: BaseException, longest: int) -> str:
    """The traceback of an error with its chained causes.

    Args:
        error: The error.
        longest: The most characters of the texts of all errors in it, so that they push out no frame; secrets are
            masked before a text is cut.
    """
    made = traceback.TracebackException.from_exception(error)
    every = list(_chain(made))
    most = max(longest // len(every), _FEWEST)
    for one in every:
        said = vars(one)
        if len(said["_str"]) > most:
            said["_str"] = _cut(said["_str"], most)
        notes = "\n".join(map(str, said["__notes__"] or ()))
        if len(notes) > most:
            said["__notes__"] = [_cut(notes, most)]
    return "".join(made.format())


def bounded(text: str, most: int) -> str:
    """The traceback, in which lines in the middle make room if it is longer: it begins and ends as before."""
    if len(text) <= most:
        return text
    first = most // 4
    begin, end = text[:first], text[first + len(_LEFT_OUT) - most :]
    return begin[: begin.rfind("\n") + 1 or first] + _LEFT_OUT + end[end.find("\n") + 1 :]


def from_the_programs_code(text: str) -> str:
    """The traceback without the frames of this package that lead to a program's code, or lie between parts of it.

    Frames in which an error arose stay, and so do those of an error that arose in none but them.
    """
    kept: list[str] = []
    frames: list[_Frame] = []
    is_inside = False
    for line in text.split("\n"):
        if is_inside and (found := _FRAME.match(line)):
            frames.append(_Frame(found[1], found[2], [line]))
        elif frames and line.startswith((frames[-1].margin + "  ", frames[-1].margin + "[Previous line")):
            frames[-1].lines.append(line)
        else:
            kept += _lines_of(frames)
            frames, is_inside = [], line.endswith(_HEADER)
            kept.append(line)
    return "\n".join([*kept, *_lines_of(frames)])


def _lines_of(frames: Sequence[_Frame]) -> Iterator[str]:
    runs = [(ours, list(run)) for ours, run in itertools.groupby(frames, lambda one: _is_machinery(one.file))]
    for number, (is_machinery, run) in enumerate(runs):
        is_last = number == len(runs) - 1
        if is_last or not is_machinery or not any(_is_door(one.file) for one in run):
            yield from (line for one in run for line in one.lines)
        elif number:
            yield f"{run[0].margin}… {len(run)} frames of the worker"


def _is_machinery(file: str) -> bool:
    return _BETWEEN.fullmatch(file) is not None or _own_path(file) is not None


def _is_door(file: str) -> bool:
    path = _own_path(file)
    return path is not None and path.startswith(_DOORS)


@functools.lru_cache(maxsize=256)
def _own_path(file: str) -> str | None:
    """The path of one of our modules inside the package, or None; the file may be that of another machine."""
    found = _OURS.fullmatch(file)
    return found[1].replace("\\", "/") if found and (_PACKAGE / found[1]).is_file() else None


def _chain(first: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting: list[traceback.TracebackException | None] = [first]
    while waiting:
        if (one := waiting.pop()) is not None:
            yield one
            waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]


def _cut(text: str, most: int) -> str:
    return f"{mask_secrets(text[: 2 * most])[:most]}…"
