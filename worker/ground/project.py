"""The project's folder: what is relative to it is the same for every program of the project, wherever that starts."""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """The nearest folder, upwards from the working directory, with a `.env` or a `pyproject.toml`.

    Without either it is the working directory.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".env").is_file() or (folder / "pyproject.toml").is_file():
            return folder
    return here
