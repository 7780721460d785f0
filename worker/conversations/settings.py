"""The settings of conversations: the time that merging may take, the length of summaries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from worker.ground.values import Duration
from worker.models.settings import ModelSettings
from worker.settings import Settings
from worker.settings.groups import Doubt, SettingsGroup, outlasting


class ConversationSettings(SettingsGroup):
    """The bounds of merging and summarizing conversations."""

    extra: ClassVar[str | None] = "tasks"

    merge_timeout: Duration = Field(timedelta(minutes=9), description="Time limit of merging a conversation.")
    merge_file_timeout: Duration = Field(timedelta(minutes=1), description="Time limit of reading one audio file.")
    summary_words: int = Field(150, ge=10, le=10_000, description="Length limit of a summary, in words.")

    def doubts(self) -> Iterator[Doubt]:
        """Yields settings that contradict each other or have no effect."""
        yield from outlasting(self, "merge_timeout", Settings.in_force(), "time_limit")
        yield from outlasting(self, "merge_file_timeout", self, "merge_timeout")
        if self.summary_words > ModelSettings.in_force().summarizer_context_words:
            yield Doubt(
                f"{self.as_written('summary_words')} is longer than the text that the model takes at once",
                "make WORKER_SUMMARY_WORDS smaller than WORKER_SUMMARIZER_CONTEXT_WORDS",
            )
