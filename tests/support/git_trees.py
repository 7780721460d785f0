"""Trees of files for tests of what git would see, and git's own answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

GIT = shutil.which("git") or "git"
_NOBODYS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "x",
    "GIT_AUTHOR_EMAIL": "x",
    "GIT_COMMITTER_NAME": "x",
    "GIT_COMMITTER_EMAIL": "x",
}


def git(folder: Path, *words: str) -> bytes:
    """Runs git in a folder, with nobody's configuration; what it prints."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _NOBODYS
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "nowhere")}
    return subprocess.run([GIT, *words], cwd=folder, env=own | home, check=True, capture_output=True).stdout


def seen_by_git(folder: Path) -> list[str]:
    """The files that git lists, tracked or not."""
    listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted({os.fsdecode(path) for path in listed.split(b"\0") if path})


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Writes files with these contents, by their paths in the folder."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder
