"""The port through which services turn texts into vectors, and the choice of who does it.

Texts that mean the same have vectors that point the same way. Vectors of two embedders say nothing to each other:
the search index asks for the name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.bridge import cancel_requested, loop_resource, run_in_thread_pool
from worker.errors import ConfigurationError
from worker.models.embedded import embedded_model
from worker.models.endpoint import Endpoint
from worker.models.failures import ModelUnavailable
from worker.settings import Settings, settings_in_force

Vectors = NDArray[np.float32]

LONGEST_TEXT = 8000
"""Characters of a text that count."""

_TEXTS_AT_ONCE = 64
_REQUESTS_AT_ONCE = 4


class Embedder(Protocol):
    """Makes a vector of a text."""

    @property
    def name(self) -> str:
        """Who makes the vectors, down to what changes them; the search index bears it."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """A vector of length 1 for each text, or of zeros for one that says nothing, a row each.

        Raises:
            RetryLater: The model asks to come back later.
            ModelUnavailable: It is out of reach, too slow, or answers nonsense.
            Fatal: The model refuses the request.
        """


class EmbeddedEmbedder:
    """The mean of the vectors of a text's tokens, computed in the thread pool; offline."""

    name = "wordllama-1"
    """Raise it when vectors change."""
    dimensions = 256

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors."""
        return await run_in_thread_pool(_embed_here, list(texts))


def _embed_here(texts: Sequence[str]) -> Vectors:
    model = embedded_model()
    vectors = np.zeros((len(texts), model.embedding.shape[1]), np.float32)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        if cancel_requested():
            break
        some = [_encodable(text[:LONGEST_TEXT]) for text in texts[start : start + _TEXTS_AT_ONCE]]
        # A text at a time: the interpreter is never held for long.
        for number, tokens in enumerate(model.tokens_of(some), start):
            vectors[number] = model.embedding.take(np.array(tokens, np.intp), axis=0).sum(axis=0)
    return _of_length_one(vectors)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _of_length_one(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


class EndpointEmbedder:
    """A model behind any endpoint with OpenAI's `/embeddings`.

    Args:
        endpoint: The open endpoint.
        model: The model's name.
        dimensions: Numbers in its vectors.
    """

    def __init__(self, endpoint: Endpoint, model: str, dimensions: int) -> None:
        self._endpoint = endpoint
        self._model = model
        self.name = model
        self.dimensions = dimensions

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[EndpointEmbedder]:
        """Opens a client for the configured endpoint, model and key."""
        async with Endpoint.open(
            f"{(settings.embedder_url or 'https://api.openai.com/v1').rstrip('/')}/embeddings",
            prefix="WORKER_EMBEDDER",
            limit=settings.embedder_timeout,
            key=settings.embedder_api_key,
        ) as endpoint:
            yield cls(endpoint, settings.embedder_model or "", settings.embedder_dimensions or 0)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors; some requests are under way at once."""
        batches = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        at_once = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def one(batch: Sequence[str]) -> Vectors:
            async with at_once:
                return await self._ask(batch)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(batch)) for batch in batches]
        except ExceptionGroup as errors:
            # What one request's error says (retry then, give up) must reach the caller as itself.
            raise errors.exceptions[0] from errors
        vectors = [task.result() for task in tasks]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.dimensions), np.float32)

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        # Endpoints refuse a text of nothing.
        inputs = [text[:LONGEST_TEXT] if text.strip() else "." for text in texts]
        answer = await self._endpoint.ask({"model": self._model, "input": inputs, "encoding_format": "float"})
        return await run_in_thread_pool(self._read, answer, len(texts))

    def _read(self, answer: object, count: int) -> Vectors:
        try:
            data = answer["data"]  # type: ignore[index]
            rows = {int(entry["index"]): entry["embedding"] for entry in data}
            vectors = np.array([rows[number] for number in range(count)], np.float32)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelUnavailable(f"{self._model} answered with no embeddings for {count} texts") from error
        if vectors.ndim != 2 or not np.isfinite(vectors).all():  # noqa: PLR2004 - a row for each text
            raise ModelUnavailable(f"{self._model} answered with embeddings that are none")
        if vectors.shape[1] != self.dimensions:
            raise ConfigurationError(
                f"WORKER_EMBEDDER_DIMENSIONS={self.dimensions}: {self._model} answers with {vectors.shape[1]}: set that"
            )
        return _of_length_one(vectors)


@loop_resource
async def embedder() -> AsyncIterator[Embedder]:
    """The configured embedder; a client lives as long as its loop."""
    settings = settings_in_force()
    if settings.embedder == "wordllama":
        yield EmbeddedEmbedder()
        return
    async with EndpointEmbedder.open(settings) as model:
        yield model
