"""A summarizer behind any endpoint with OpenAI's chat API.

It asks once: Dramatiq's retries are the retries, and the history shows each of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import openai

from worker.errors import Fatal, RetryLater, WorkerError
from worker.settings import Settings

_INSTRUCTION = (
    "You summarize transcripts of conversations. Answer with the summary alone, in at most {words} words, "
    "in {language}. Say who wants, decided or promised what. Add nothing that the transcript does not say."
)
_MAX_DELAY = timedelta(hours=1)
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


class ModelUnavailable(WorkerError):
    """The model's endpoint cannot be reached, or answers nonsense; the message is retried."""


class OpenAISummarizer:
    """Asks a model for summaries.

    Args:
        client: The open client.
        model: The model's name.
        context_words: How many words it takes at once.
    """

    def __init__(self, client: openai.AsyncOpenAI, model: str, context_words: int) -> None:
        self._client = client
        self._model = model
        self.name = f"openai-1 {client.base_url} {model}"
        self.context_words: int | None = context_words

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[OpenAISummarizer]:
        """Opens a client for the configured endpoint, model and key."""
        key = settings.summarizer_api_key
        async with openai.AsyncOpenAI(
            # Local endpoints want no key, the client wants some; without ours it would look into the environment.
            api_key=key.get_secret_value() if key is not None else "none",
            base_url=settings.summarizer_url or "https://api.openai.com/v1",
            timeout=settings.summarizer_timeout.total_seconds(),
            max_retries=0,
        ) as client:
            yield cls(client, settings.summarizer_model or "", settings.summarizer_context_words)

    async def summarize(self, text: str, *, max_words: int, language: str | None = None) -> str:
        """A summary in about `max_words` words, in `language` or the text's own.

        Raises:
            RetryLater: The endpoint is busy or broken, and says when to come back.
            ModelUnavailable: It is busy, broken or out of reach, and does not say.
            Fatal: It refuses the request.
        """
        instruction = _INSTRUCTION.format(words=max_words, language=language or "the transcript's own language")
        try:
            answer = await self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "system", "content": instruction}, {"role": "user", "content": text}],
            )
        except openai.APIStatusError as error:
            raise _translated(error) from error
        except openai.APIError as error:
            raise ModelUnavailable(f"{self._client.base_url} cannot be asked: {error}") from error
        content = answer.choices[0].message.content if answer.choices else None
        if not content or not content.strip():
            raise ModelUnavailable(f"{self._model} answered with no text")
        return content.strip()


def _translated(error: openai.APIStatusError) -> WorkerError:
    # The client's message begins with "Error code: 500 - ", and goes on with what the endpoint said.
    said = f"the model's endpoint answered {error.status_code}: {error.message.partition(' - ')[2] or error.message}"
    if error.status_code != _TOO_MANY_REQUESTS and error.status_code < _SERVER_ERRORS:
        return Fatal(f"{said}; check WORKER_SUMMARIZER_URL, _MODEL and _API_KEY")
    delay = _retry_after(error.response.headers.get("retry-after", ""))
    return ModelUnavailable(said) if delay is None else RetryLater(min(delay, _MAX_DELAY), said)


def _retry_after(header: str) -> timedelta | None:
    """What the server says: seconds, or a date (RFC 9110, section 10.2.3)."""
    try:
        return timedelta(seconds=max(0.0, float(header)))
    except (ValueError, OverflowError):
        pass
    try:
        return max(timedelta(0), parsedate_to_datetime(header) - datetime.now(UTC))
    except (ValueError, TypeError):
        return None
