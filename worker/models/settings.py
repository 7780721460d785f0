"""The settings of the models: the summarizer, the embedder and the reranker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from worker.ground.values import ANY_CASE, Duration
from worker.settings import Settings
from worker.settings.environment import variable
from worker.settings.groups import Doubt, SettingsGroup, outlasting


class ModelSettings(SettingsGroup):
    """The models of the built-in application, embedded ones by default."""

    extra: ClassVar[str | None] = "tasks"

    summarizer: Annotated[Literal["extractive", "openai"], ANY_CASE] = Field(
        "extractive",
        description="Summarizer. `extractive`: the transcript's own sentences, offline. "
        "`openai`: any endpoint with OpenAI's API.",
    )
    summarizer_url: str | None = Field(None, description="Base URL of the summarizer. Unset: OpenAI's own.")
    summarizer_model: str | None = Field(None, description="Name of the summarizer's model. Required with `openai`.")
    summarizer_api_key: SecretStr | None = Field(None, description="Key for the summarizer, if it requires one.")
    summarizer_timeout: Duration = Field(
        timedelta(minutes=1), description="Time limit of one request to the summarizer."
    )
    summarizer_context_words: int = Field(
        6000, ge=100, description="Number of words that the model takes at once. Longer transcripts are split."
    )
    embedder: Annotated[Literal["wordllama", "openai"], ANY_CASE] = Field(
        "wordllama",
        description="Source of the search index's vectors. `wordllama`: an embedded model, offline. "
        "`openai`: any endpoint with OpenAI's `/embeddings`.",
    )
    embedder_url: str | None = Field(None, description="Base URL of the embedder. Unset: OpenAI's own.")
    embedder_model: str | None = Field(None, description="Name of the embedder's model. Required with `openai`.")
    embedder_dimensions: int | None = Field(
        None, ge=1, le=65_536, description="Length of the embedder's vectors. Required with `openai`."
    )
    embedder_api_key: SecretStr | None = Field(None, description="Key for the embedder, if it requires one.")
    embedder_timeout: Duration = Field(timedelta(seconds=30), description="Time limit of one request to the embedder.")
    reranker_url: str | None = Field(
        None, description="Base URL of an endpoint with Cohere's or Jina's `/rerank`. Unset: no reranking."
    )
    reranker_model: str | None = Field(None, description="Name of the reranker's model, if its endpoint has several.")
    reranker_api_key: SecretStr | None = Field(None, description="Key for the reranker, if it requires one.")
    reranker_timeout: Duration = Field(
        timedelta(seconds=2),
        description="Time limit of one request to the reranker. After it, answers are not reranked.",
    )

    @model_validator(mode="after")
    def _are_complete(self) -> ModelSettings:
        if self.summarizer == "openai" and not self.summarizer_model:
            raise ValueError("WORKER_SUMMARIZER=openai needs WORKER_SUMMARIZER_MODEL, the name of the model")
        if self.embedder == "openai" and not (self.embedder_model and self.embedder_dimensions):
            raise ValueError(
                "WORKER_EMBEDDER=openai needs WORKER_EMBEDDER_MODEL, the name of the model, and "
                "WORKER_EMBEDDER_DIMENSIONS, the length of its vectors"
            )
        return self

    def doubts(self) -> Iterator[Doubt]:
        """Yields settings that contradict each other or have no effect."""
        yield from outlasting(self, "summarizer_timeout", Settings.in_force(), "time_limit")
        if self.summarizer == "extractive":
            for name in ("summarizer_url", "summarizer_model", "summarizer_api_key"):
                if getattr(self, name) is not None:
                    yield Doubt(
                        f"{variable(name)} is set, and WORKER_SUMMARIZER=extractive does not use it",
                        f"set WORKER_SUMMARIZER=openai, or unset {variable(name)}",
                    )
