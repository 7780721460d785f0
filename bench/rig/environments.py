"""The environments of the contenders: most refuse each other's versions, so each set of requirements has one.

They lie in a folder that git ignores, and are made when they are first needed. Nothing is installed into the
environment that runs the benchmark.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from contenders import Contender

FOLDER = Path(__file__).parents[2] / "build" / "contenders"
NEWEST = 14
TIMEOUT = 300.0
READY = "requirements.txt"
PRINT_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
PRINT_PROGRAM = "import sys; print(sys.executable)"
PRINT_VERSIONS = """
import importlib.metadata, json, platform, sys
print(json.dumps({"Python": platform.python_version()} | {n: importlib.metadata.version(n) for n in sys.argv[1:]}))
"""


class Missing(Exception):
    """A contender cannot take part; its text is the reason."""


def python_of(contender: Contender, folder: Path) -> str:
    """The contender's interpreter, in an environment that is made if need be.

    Raises:
        Missing: It cannot be made.
    """
    if not contender.requirements:
        return sys.executable
    base = _interpreter(contender.python)
    environment = folder / f"{_name(contender.requirements)}-{_answer([base, '-c', PRINT_VERSION])}"
    python = environment / "bin" / "python"
    wanted = "\n".join(contender.requirements)
    ready = environment / READY
    if not (ready.exists() and ready.read_text() == wanted):
        print(f"making {environment}", file=sys.stderr)
        _answer([base, "-m", "venv", "--clear", environment])
        _answer([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *contender.requirements])
        ready.write_text(wanted)
    return str(python)


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """An interpreter's version, and its versions of these packages.

    Raises:
        Missing: It lacks one.
    """
    told: dict[str, str] = json.loads(_answer([python, "-c", PRINT_VERSIONS, *packages]))
    return told


def _name(requirements: Sequence[str]) -> str:
    first = requirements[0]
    return first[: next(at for at, letter in enumerate(first) if letter in "[<>=")]


def _interpreter(oldest: tuple[int, int]) -> str:
    """The benchmark's own interpreter if it is new enough, else the newest that is found."""
    if sys.version_info >= oldest:
        return sys.executable
    wanted = ".".join(map(str, oldest))
    for candidate in _candidates(oldest[1]):
        try:
            # A shim on PATH may stand for a Python that is not installed.
            return _answer([candidate, "-c", PRINT_PROGRAM])
        except Missing:
            continue
    raise Missing(f"it needs Python {wanted} or newer, and none is on PATH or under pyenv: install one")


def _candidates(oldest: int) -> Iterator[Path]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(NEWEST, oldest - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield Path(found)
        yield from sorted(pyenv.glob(f"3.{minor}.*/bin/python"), reverse=True)


def _answer(command: Sequence[str | Path]) -> str:
    """What a command prints last.

    Raises:
        Missing: It cannot be started, fails, or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode != 0:
        raise Missing(last_line(done.stderr) or f"{command[0]} failed")
    return last_line(done.stdout)


def last_line(text: str) -> str:
    """The last line of a text that is not blank."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
