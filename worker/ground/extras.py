"""The package's extras and the libraries that each installs, so that an error can name the missing extra."""

from __future__ import annotations

import importlib.util

from worker.errors import MissingExtra

_PACKAGES = {
    "recall": ("httpx", "lancedb", "pyarrow", "tree_sitter", "tree_sitter_python"),
    "tasks": ("aiosqlite", "alembic", "av", "lameenc", "numpy", "obstore", "openai", "sqlalchemy", "wordllama"),
    "web": ("fastapi", "jinja2", "prometheus_client", "sse_starlette", "starlette", "uvicorn"),
}


def extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra that installs the missing module, or None."""
    package = (error.name or "").partition(".")[0]
    return next((extra for extra, packages in _PACKAGES.items() if package in packages), None)


def is_installed(extra: str) -> bool:
    """Whether an extra is installed."""
    return all(importlib.util.find_spec(package) is not None for package in _PACKAGES[extra])


def require(extra: str, needed_for: str) -> None:
    """Checks that an extra is installed.

    Raises:
        MissingExtra: It is not installed.
    """
    if not is_installed(extra):
        raise MissingExtra(extra, needed_for)
