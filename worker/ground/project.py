"""The project's folder: paths relative to it are the same for every program of the project, started in any folder."""

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
