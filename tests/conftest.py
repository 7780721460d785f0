"""What integration and end-to-end tests share: settings, a server and a client of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings, put_in_force

SET_BY_DEVELOPERS = ("WORKER_", "THREAD_POOL_SIZE", "XDG_RUNTIME_DIR", "OPENAI_")


def forget_environment(environment: dict[str, str]) -> dict[str, str]:
    """The same environment without what a developer may have set for this project."""
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    terminals = {"FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(SET_BY_DEVELOPERS) and name.upper() not in proxies | terminals
    }


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that a developer may have set reaches the test."""
    for name in os.environ.keys() - forget_environment(dict(os.environ)).keys():
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Settings]:
    """Settings in force with data of their own; no `.env` is found."""
    monkeypatch.chdir(tmp_path)
    own = Settings(data_dir=tmp_path / "data")
    put_in_force(own)
    yield own
    put_in_force(None)


@pytest.fixture
def valkey(settings: Settings) -> Iterator[EmbeddedServer]:
    """A running server for these settings, stopped in the end."""
    server = EmbeddedServer(settings)
    server.ensure_running()
    yield server
    server.stop()


@pytest.fixture
def client(settings: Settings, valkey: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of that server."""
    opened = connect(settings)
    yield opened
    opened.close()
