"""The file that an export writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli.export import _complete_or_not_at_all
from worker.errors import ConfigurationError


def export_while_somebody_writes(to: Path) -> None:
    with _complete_or_not_at_all(to) as file:
        file.write("ours")
        to.write_text("theirs")


def test_a_file_that_somebody_makes_meanwhile_is_not_touched(tmp_path: Path) -> None:
    """It is refused as one that was there before, and nothing is left beside it."""
    to = tmp_path / "kept.jsonl"
    with pytest.raises(ConfigurationError, match="kept.jsonl: it exists"):
        export_while_somebody_writes(to)
    assert [one.name for one in tmp_path.iterdir()] == ["kept.jsonl"]
    assert to.read_text() == "theirs"


def test_a_file_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    """And no other."""
    to = tmp_path / "kept.jsonl"
    with _complete_or_not_at_all(to) as file:
        file.write("ours")
        assert not to.exists()
    assert [one.name for one in tmp_path.iterdir()] == ["kept.jsonl"]
    assert to.read_text() == "ours"
