"""The table of commands, which must tell of them without importing them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer.main

from worker.cli.app import app

GROUP: Any = typer.main.get_command(app)
NAMES = GROUP.list_commands(None)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_the_command_says_itself(name: str) -> None:
    """In the same words."""
    with GROUP._listing():
        listed = GROUP.get_command(None, name).help
    assert " ".join(GROUP.get_command(None, name).help.split()) == listed


def test_a_list_of_commands_imports_none_of_them() -> None:
    """So that help and completion are there at once."""
    code = """
import sys
import typer.main
from worker.cli.app import app
group = typer.main.get_command(app)
try:
    group.main(["--help"], standalone_mode=False)
finally:
    print(sorted(name for name in sys.modules if name.startswith("worker.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "['worker.cli.app', 'worker.cli.exit_codes']"
    assert "conversations" in done.stdout
