"""The port through which recall has a model order its hits, and the choice of that model: none by default."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from worker.ground.texts import counted
from worker.loops.loop_resources import loop_resource
from worker.models.endpoint import Endpoint
from worker.models.failures import ModelUnavailable
from worker.models.settings import ModelSettings

LONGEST_TEXT = 4000
"""Characters of a text that are sent to a reranker; the rest is cut off."""


class Reranker(Protocol):
    """A model that scores how well each text answers a question."""

    @property
    def name(self) -> str:
        """The reranker's name."""

    async def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """A score for each text, in their order; higher is better.

        Raises:
            RetryLater: The model asks to come back later.
            ModelUnavailable: The model cannot be reached, is too slow, or gives an answer that is not valid.
            Fatal: The model refuses the request.
        """


class EndpointReranker:
    """A reranker behind an endpoint with `/rerank`, in the form that Cohere and Jina share.

    Args:
        endpoint: The open endpoint.
        model: The model's name, or None if the endpoint has only one.
    """

    def __init__(self, endpoint: Endpoint, model: str | None) -> None:
        self._endpoint = endpoint
        self._model = model
        self.name = model or "the reranker"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: ModelSettings) -> AsyncIterator[EndpointReranker]:
        """Opens a client for the configured endpoint, model and key."""
        async with Endpoint.open(
            f"{(settings.reranker_url or '').rstrip('/')}/rerank",
            prefix="WORKER_RERANKER",
            limit=settings.reranker_timeout,
            key=settings.reranker_api_key,
        ) as endpoint:
            yield cls(endpoint, settings.reranker_model)

    async def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """A score for each text, as `Reranker` promises."""
        body: dict[str, object] = {
            "query": question,
            "documents": [text[:LONGEST_TEXT] for text in texts],
            "top_n": len(texts),
        }
        if self._model is not None:
            body["model"] = self._model
        answer = await self._endpoint.ask(body)
        try:
            scores = {int(entry["index"]): float(entry["relevance_score"]) for entry in answer["results"]}
            ordered = [scores[number] for number in range(len(texts))]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelUnavailable(f"{self.name} answered with no scores for {counted(len(texts), 'text')}") from error
        if not all(map(math.isfinite, ordered)):
            raise ModelUnavailable(f"{self.name} answered with scores that are not finite numbers")
        return ordered


@loop_resource
async def reranker() -> AsyncIterator[Reranker | None]:
    """The configured reranker, or None; a client lives as long as its loop."""
    settings = ModelSettings.in_force()
    if settings.reranker_url is None:
        yield None
        return
    async with EndpointReranker.open(settings) as model:
        yield model
