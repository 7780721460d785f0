"""The settings of recall: the time that a search may take, and the amount that a sync takes up at once."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from worker.ground.values import Duration, Folders
from worker.settings.groups import SettingsGroup


class RecallSettings(SettingsGroup):
    """The bounds of syncing repositories, and of searching the index."""

    extra: ClassVar[str | None] = "recall"

    recall_timeout: Duration = Field(
        timedelta(seconds=5), description="Time limit of each part of a search. The answer goes without a slow part."
    )
    sync_batch: int = Field(
        100, ge=1, le=10_000, description="Number of files of a repository that are embedded and stored at once."
    )
    sync_max_file_bytes: int = Field(
        2**20, ge=1, le=2**27, description="Size limit of a file, in bytes. Larger files are not indexed."
    )
    repository_roots: Folders = Field(
        (),
        description="Folders, separated by commas, below which `sync_repository` takes any folder. Others must be "
        "added with `worker repositories add`.",
    )
