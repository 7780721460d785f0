"""The settings of the stores: the places of the built-in application's data."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from worker.ground.values import Folder
from worker.settings import Settings
from worker.settings.groups import SettingsGroup


class StoreSettings(SettingsGroup):
    """The places of the built-in application's data: by default, in the data directory."""

    extra: ClassVar[str | None] = "tasks"

    database_url: SecretStr = Field(
        default_factory=lambda: SecretStr(f"sqlite+aiosqlite:///{_data_dir()}/conversations.db"),
        description="Database of conversations and repositories, as an async URL of SQLAlchemy.",
    )
    objects_url: SecretStr = Field(
        default_factory=lambda: SecretStr((_data_dir() / "objects").as_uri()),
        description="Store of audio files: file:///folder or s3://bucket/prefix.",
    )
    index_dir: Folder = Field(
        default_factory=lambda: _data_dir() / "index",
        description="Folder of the search index, on this machine. A relative path starts at the project's folder.",
    )


def _data_dir() -> Path:
    return Settings.in_force().data_dir
