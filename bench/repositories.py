"""Measures the sync of repositories: files and chunks per second of a first sync, and the time without changes.

The repositories are Python's standard library, and the installed sources of Dramatiq and SQLAlchemy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from worker import NoContentFound, run_async_in_new_loop
from worker.recall.repositories import add_repository
from worker.recall.repository_sync import sync_repository
from worker.settings import Settings
from worker.settings.groups import put_in_force

AGAIN = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """A repository's first sync, and the fastest of its syncs without changes."""

    repository: str
    files: int
    chunks: int
    seconds: float
    files_a_second: float
    chunks_a_second: float
    unchanged_seconds: float
    peak_megabytes: int


def sources() -> dict[str, Path]:
    """The folders, by name."""
    found = {"stdlib": Path(sysconfig.get_path("stdlib"))}
    for package in ("dramatiq", "sqlalchemy"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed: pip install {package}")
        found[package] = Path(spec.origin).parent
    return found


def measure(name: str, folder: Path) -> Measured:
    """Syncs a folder, and syncs it again without changes."""
    run_async_in_new_loop(add_repository(folder, name, exclude=["/site-packages", "__pycache__"]))
    began = time.perf_counter()
    synced = run_async_in_new_loop(sync_repository(name))
    took = time.perf_counter() - began
    return Measured(
        repository=name,
        files=synced.stored,
        chunks=synced.chunks,
        seconds=round(took, 2),
        files_a_second=round(synced.stored / took),
        chunks_a_second=round(synced.chunks / took),
        unchanged_seconds=round(min(unchanged(name) for _ in range(AGAIN)), 3),
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def unchanged(name: str) -> float:
    """Seconds of a sync without changes."""
    began = time.perf_counter()
    try:
        run_async_in_new_loop(sync_repository(name))
    except NoContentFound:
        return time.perf_counter() - began
    raise SystemExit(f"{name} changes while it is measured: sync a folder that no program writes to")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-repositories-") as folder:
        put_in_force(Settings(data_dir=Path(folder)))
        print(f"Python {platform.python_version()}, {platform.machine()}")
        print(
            f"{'':12}{'files':>8}{'chunks':>9}{'s':>8}{'files/s':>9}{'chunks/s':>10}{'unchanged s':>13}{'peak MB':>9}"
        )
        for name, source in sources().items():
            one = measure(name, source)
            results.append(one)
            print(
                f"{one.repository:12}{one.files:8}{one.chunks:9}{one.seconds:8}{one.files_a_second:9}"
                f"{one.chunks_a_second:10}{one.unchanged_seconds:13}{one.peak_megabytes:9}"
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=2))


if __name__ == "__main__":
    main()
