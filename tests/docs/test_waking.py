"""The page about waking without a lock, and the places in the source that it explains."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/waking-without-a-lock.md"


def test_the_page_and_the_places_it_explains_name_each_other() -> None:
    """Whoever reads the comment finds the page, and whoever reads the page finds every place."""
    named = {f"worker/{path}" for path in re.findall(r"`([a-z]+/[a-z_]+[.]py)`", PAGE.read_text())}
    naming = {
        str(file.relative_to(ROOT))
        for file in ROOT.glob("worker/**/*.py")
        if PAGE.name in file.read_text(errors="replace")
    }
    assert named == naming - {"worker/threads/doorbell.py"}
