"""The port through which services ask for a summary, and the choice of the summarizer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.extractive import ExtractiveSummarizer
from worker.models.openai import OpenAISummarizer
from worker.models.settings import ModelSettings


class Summarizer(Protocol):
    """A model that makes a short text from a long one."""

    @property
    def name(self) -> str:
        """The summarizer's name, with all that changes its results; the digest of a summary's input contains it."""

    @property
    def context_words(self) -> int | None:
        """The most words that it takes at once, or None for any number."""

    async def summarize(self, text: str, *, max_words: int, language: str | None = None) -> str:
        """A summary of at most about `max_words` words; in `language`, else in the text's own.

        Raises:
            RetryLater: The model asks to come back later.
            Fatal: The model refuses the request.
        """


class _InThreadPool:
    """Runs the embedded summarizer, which computes, in the thread pool."""

    def __init__(self, embedded: ExtractiveSummarizer) -> None:
        self._embedded = embedded
        self.name = embedded.name
        self.context_words = embedded.context_words

    async def summarize(self, text: str, *, max_words: int, language: str | None = None) -> str:
        del language  # the sentences are the text's own
        return await run_in_thread_pool(self._embedded.summarize, text, max_words=max_words)


@loop_resource
async def summarizer() -> AsyncIterator[Summarizer]:
    """The configured summarizer; a client lives as long as its loop."""
    settings = ModelSettings.in_force()
    if settings.summarizer == "extractive":
        yield _InThreadPool(ExtractiveSummarizer())
        return
    async with OpenAISummarizer.open(settings) as model:
        yield model
