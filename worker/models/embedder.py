"""The port through which services turn texts into vectors, and the choice of the embedder.

Texts of the same meaning have vectors of the same direction. Vectors of two embedders cannot be compared: the search
index stores the embedder's name, and checks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import ConfigurationError
from worker.ground.groups import deciding
from worker.ground.texts import counted
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import cancel_requested, run_in_thread_pool
from worker.models.embedded import EmbeddedModel, embedded_model
from worker.models.endpoint import Endpoint
from worker.models.failures import ModelUnavailable
from worker.models.settings import ModelSettings
from worker.models.words import names_of, spelled_out

Vectors = NDArray[np.float32]
Floats = NDArray[np.float32]

LONGEST_TEXT = 8000
"""Characters of a text that an embedder reads; the rest is ignored."""

_TITLE = 0.5
_COMMON = 1e-3
_FIRST = 10.0

_HARMLESS = "a word"

_TEXTS_AT_ONCE = 64
_REQUESTS_AT_ONCE = 4


class Embedder(Protocol):
    """Makes a vector of a text."""

    @property
    def name(self) -> str:
        """The embedder's name, with all that changes its vectors; the search index stores it."""

    @property
    def dimensions(self) -> int:
        """The number of numbers in a vector."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text: a vector of length 1, or zeros for a text without meaning.

        The first line of a text is its title, which may be blank.

        Raises:
            RetryLater: The model asks to come back later.
            ModelUnavailable: The model cannot be reached, is too slow, or gives an answer that is not valid.
            Fatal: The model refuses the request.
        """


async def refuses_not_everything(model: Embedder) -> None:
    """Checks, after an embedder has refused a user's text, that it does not refuse every text.

    Raises:
        Fatal: The embedder refuses a harmless text too; the error is the embedder's.
    """
    await model.embed([_HARMLESS])


class EmbeddedEmbedder:
    """Computes the mean of the vectors of a text's tokens, in the thread pool, without a network.

    A name counts as its parts. A token counts less if it is frequent in its language, and two occurrences of it count
    less than double. The first line is the text's title: it counts half as much again as the whole text.
    """

    name = "wordllama-2"
    """The embedder's name. Raise its number when the vectors change."""
    dimensions = 256

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text, as `Embedder` promises."""
        return await run_in_thread_pool(_embed_here, list(texts))


def _embed_here(texts: Sequence[str]) -> Vectors:
    model = embedded_model()
    weights = _weights(len(model.embedding))
    vectors = np.zeros((len(texts), model.embedding.shape[1]), np.float32)
    for number, text in enumerate(texts):
        if cancel_requested():
            break
        vectors[number] = _mean(model, weights, text[:LONGEST_TEXT])
        vectors[number] += _TITLE * _mean(model, weights, text[:LONGEST_TEXT].partition("\n")[0])
    return _of_length_one(vectors)


def _mean(model: EmbeddedModel, weights: Floats, text: str) -> Vectors:
    """The mean of the vectors of a text's tokens, scaled to length 1; zeros for a text without tokens."""
    tokens = list(chain.from_iterable(map(_tokens, names_of(text))))
    ids, counts = np.unique(np.array(tokens, np.intp), return_counts=True)
    total = (weights[ids] * np.log1p(counts, dtype=np.float32)) @ model.embedding.take(ids, axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32)


@functools.cache
def _weights(tokens: int) -> Floats:
    """The weight of each token (SIF, Arora et al. 2017): the tokenizer's tokens are roughly in order of frequency."""
    frequency = 1 / (np.arange(tokens, dtype=np.float32) + _FIRST)
    frequency /= frequency.sum()
    return np.asarray(_COMMON / (_COMMON + frequency), np.float32)


@functools.lru_cache(maxsize=50_000)
def _tokens(name: str) -> tuple[int, ...]:
    """The tokens of a name. They are cached, because texts repeat few words often; no token spans two words."""
    return tuple(embedded_model().tokens(spelled_out(name)))


def _of_length_one(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


class EndpointEmbedder:
    """An embedder behind any endpoint with OpenAI's `/embeddings`.

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
    async def open(cls, settings: ModelSettings) -> AsyncIterator[EndpointEmbedder]:
        """Opens a client for the configured endpoint, model and key."""
        async with Endpoint.open(
            f"{(settings.embedder_url or 'https://api.openai.com/v1').rstrip('/')}/embeddings",
            prefix="WORKER_EMBEDDER",
            limit=settings.embedder_timeout,
            key=settings.embedder_api_key,
        ) as endpoint:
            yield cls(endpoint, settings.embedder_model or "", settings.embedder_dimensions or 0)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text, as `Embedder` promises; a few requests run at once."""
        batches = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        at_once = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def one(batch: Sequence[str]) -> Vectors:
            async with at_once:
                return await self._ask(batch)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(batch)) for batch in batches]
        except ExceptionGroup as errors:
            # The error of one request (retry at a time, give up) must reach the caller as it is.
            raise deciding(errors) from errors
        vectors = [task.result() for task in tasks]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.dimensions), np.float32)

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        # Endpoints refuse an empty text.
        inputs = [text[:LONGEST_TEXT] if text.strip() else "." for text in texts]
        answer = await self._endpoint.ask({"model": self._model, "input": inputs, "encoding_format": "float"})
        return await run_in_thread_pool(self._read, answer, len(texts))

    def _read(self, answer: object, count: int) -> Vectors:
        try:
            data = answer["data"]  # type: ignore[index]
            rows = {int(entry["index"]): entry["embedding"] for entry in data}
            vectors = np.array([rows[number] for number in range(count)], np.float32)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelUnavailable(f"{self._model} answered with no embeddings for {counted(count, 'text')}") from error
        if vectors.ndim != 2 or not np.isfinite(vectors).all():  # noqa: PLR2004 - a row for each text
            raise ModelUnavailable(f"{self._model} answered with embeddings that are not valid")
        if vectors.shape[1] != self.dimensions:
            raise ConfigurationError(
                f"WORKER_EMBEDDER_DIMENSIONS={self.dimensions}: {self._model} answers with {vectors.shape[1]}: set that"
            )
        return _of_length_one(vectors)


@loop_resource
async def embedder() -> AsyncIterator[Embedder]:
    """The configured embedder; a client lives as long as its loop."""
    settings = ModelSettings.in_force()
    if settings.embedder == "wordllama":
        yield EmbeddedEmbedder()
        return
    async with EndpointEmbedder.open(settings) as model:
        yield model
