"""The projects that how-tos show, as files."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import ROOT, blocks

_NAME = re.compile(r"# ([\w/]+\.py)\n")


def files_of(page: str, folder: Path) -> None:
    """Writes each block that begins with a file's name into that file."""
    for block in blocks(ROOT / "docs" / "how-to" / page, "python"):
        if (name := _NAME.match(block.code)) is not None:
            file = folder / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")
