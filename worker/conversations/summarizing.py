"""Summarizes a conversation's transcript of any length, with the configured summarizer."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass

from worker.conversations.settings import ConversationSettings
from worker.errors import NoContentFound, Unchanged
from worker.ground.groups import deciding
from worker.ground.texts import counted
from worker.models.summarizer import Summarizer, summarizer
from worker.stores.conversations import conversation_store
from worker.stores.transcripts import clean

# Some scripts have no spaces between words: a sentence of Japanese is longer than a word of any other language.
_LONGEST_WORD = 40
_PIECE = 4

_PARTS_AT_ONCE = 4
"""The most requests that one conversation sends to a model at once."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary, and the number of words that were summarized."""

    text: str
    words_read: int

    def describe(self) -> str:
        """One line for the history."""
        return f"{counted(len(self.text.split()), 'word')} from {self.words_read:,}"


async def summarize_conversation(conversation_id: str, language: str | None = None) -> Summary:
    """Summarizes the transcripts of the conversation's chunks, in order, and stores the summary.

    A transcript that is too long for the model is split. The parts are summarized, and then their summaries.

    Args:
        conversation_id: The conversation.
        language: The language of the summary, such as "German", or None for the transcript's own. The extractive
            summarizer always uses the transcript's.

    Raises:
        NoContentFound: There is no transcript, or it holds only whitespace.
        Unchanged: The same transcript was summarized before, by the same summarizer.
        RetryLater, ModelUnavailable, Fatal: The model's error.
    """
    conversations = await conversation_store()
    text = clean(chunk.transcript or "" for chunk in await conversations.chunks(conversation_id))
    if not any(char.isalnum() for char in text):
        raise NoContentFound(f"conversation {conversation_id!r} has no transcript")
    model = await summarizer()
    max_words = ConversationSettings.in_force().summary_words
    digest = hashlib.sha256("\0".join([model.name, language or "", str(max_words), text]).encode()).hexdigest()
    known = await conversations.get(conversation_id)
    if known is not None and known.summary_digest == digest:
        raise Unchanged
    summary = clean([await condense(model, text, max_words=max_words, language=language)])
    if not summary:
        raise NoContentFound(f"the transcript of conversation {conversation_id!r} says nothing")
    await conversations.save_summary(conversation_id, summary, digest)
    return Summary(summary, len(text.split()))


async def condense(model: Summarizer, text: str, *, max_words: int, language: str | None = None) -> str:
    """Summarizes a text of any length: first in parts of a size for the model, then the summaries of the parts.

    Raises:
        RetryLater, ModelUnavailable, Fatal: The model's error.
    """
    takes = model.context_words
    while takes is not None and len(_units(text)) > takes:
        parts = split(text, takes)
        # Two neighbouring parts hold more words than the model takes: a third of that for each shortens every round.
        words = max(1, min(max_words, takes // 3))
        summaries = await _summarize_parts(model, parts, words, language)
        text = "\n".join("".join(_units(summary)[: takes // 3]).strip() for summary in summaries)
    return await model.summarize(text, max_words=max_words, language=language)


async def _summarize_parts(model: Summarizer, parts: list[str], words: int, language: str | None) -> list[str]:
    at_once = asyncio.Semaphore(_PARTS_AT_ONCE)

    async def one(part: str) -> str:
        async with at_once:
            return await model.summarize(part, max_words=words, language=language)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(part)) for part in parts]
    except ExceptionGroup as errors:
        # The error of one part (skip, retry at a time, give up) must reach the actor as it is.
        raise deciding(errors) from errors
    return [task.result() for task in tasks]


def split(text: str, max_words: int) -> list[str]:
    """Cuts a text into parts of at most `max_words` words, at the ends of lines or sentences if possible."""
    parts: list[str] = []
    current: list[str] = []
    size = 0
    for piece in re.split(r"(?<=[.!?\u2026])\s+|\n|(?<=[\u3002\uff01\uff1f])", text):
        units = _units(piece)
        for start in range(0, len(units), max_words):
            run = units[start : start + max_words]
            if size + len(run) > max_words and current:
                parts.append("\n".join(current))
                current, size = [], 0
            current.append("".join(run).strip())
            size += len(run)
    if current:
        parts.append("\n".join(current))
    return parts


def _units(text: str) -> list[str]:
    """The words of a text, each with the space before it; text without spaces is cut into pieces of a word's length."""
    units: list[str] = []
    for word in text.split():
        if len(word) <= _LONGEST_WORD:
            units.append(f" {word}")
        else:
            pieces = [word[start : start + _PIECE] for start in range(0, len(word), _PIECE)]
            units += [f" {pieces[0]}", *pieces[1:]]
    return units
