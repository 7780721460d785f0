"""A summarizer behind any endpoint with OpenAI's chat API.

It sends each request once. The retries are those of the message, and the history shows each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import openai
from openai.types.chat import ChatCompletion

from worker.errors import WorkerError
from worker.ground.durations import format_duration
from worker.ground.secrets import mask_secrets
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.failures import ModelUnavailable, failure, tls_context
from worker.models.settings import ModelSettings

_INSTRUCTION = (
    "You summarize transcripts of conversations. Answer with the summary alone, in at most {words} words, "
    "in {language}. Say who wants, decided or promised what. Add nothing that the transcript does not say."
)


class OpenAISummarizer:
    """Asks a model for summaries.

    Args:
        client: The open client.
        model: The model's name.
        context_words: The most words of one request.
        timeout: The longest time of one request.
    """

    def __init__(self, client: openai.AsyncOpenAI, model: str, context_words: int, timeout: timedelta) -> None:
        self._client = client
        self._model = model
        self._timeout = timeout
        self._url = mask_secrets(str(client.base_url))
        self.name = f"openai-1 {self._url} {model}"
        self.context_words: int | None = context_words

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: ModelSettings) -> AsyncIterator[OpenAISummarizer]:
        """Opens a client for the configured endpoint, model and key."""
        key = settings.summarizer_api_key
        async with openai.AsyncOpenAI(
            # Local endpoints need no key, but the client does; without ours it would read the environment.
            api_key=key.get_secret_value() if key is not None else "none",
            base_url=settings.summarizer_url or "https://api.openai.com/v1",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=await run_in_thread_pool(tls_context)),
        ) as client:
            # The client takes these from the environment too.
            client.organization = client.project = None
            model = settings.summarizer_model or ""
            yield cls(client, model, settings.summarizer_context_words, settings.summarizer_timeout)

    async def summarize(self, text: str, *, max_words: int, language: str | None = None) -> str:
        """A summary in about `max_words` words, in `language` or the text's own.

        Raises:
            RetryLater: The endpoint is busy or broken, and names a time to come back.
            ModelUnavailable: The endpoint is busy or broken and names no time, is too slow, cannot be reached, or gives
                an answer that is not valid.
            Fatal: The endpoint refuses the request.
        """
        instruction = _INSTRUCTION.format(words=max_words, language=language or "the transcript's own language")
        try:
            # The client's own time-out starts again with each byte.
            async with asyncio.timeout(self._timeout.total_seconds()):
                answer = await self._client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": "system", "content": instruction}, {"role": "user", "content": text}],
                )
        except openai.APIStatusError as error:
            raise _translated(error, self._client.api_key) from error
        except openai.APIError as error:
            raise ModelUnavailable(f"{self._url} cannot be asked: {error}") from error
        except TimeoutError as error:
            took = format_duration(self._timeout)
            raise ModelUnavailable(f"{self._url} did not answer within {took} (WORKER_SUMMARIZER_TIMEOUT)") from error
        except ValueError as error:
            raise ModelUnavailable(f"{self._url} gave an answer that is not JSON") from error
        return _content_of(answer, self._model)


def _content_of(answer: ChatCompletion, model: str) -> str:
    try:
        content = answer.choices[0].message.content
        if content and content.strip():
            return content.strip()
    except (AttributeError, IndexError, TypeError) as error:
        # The client does not check the answer.
        raise ModelUnavailable(f"{model} answered with no completion") from error
    raise ModelUnavailable(f"{model} answered with no text")


def _translated(error: openai.APIStatusError, key: str) -> WorkerError:
    # The client's message begins with "Error code: 500 - ", followed by the endpoint's own words.
    said = f"the model's endpoint answered {error.status_code}: {error.message.partition(' - ')[2] or error.message}"
    said = said.replace(key, "***")
    after = error.response.headers.get("retry-after", "")
    return failure(error.status_code, said, retry_after=after, prefix="WORKER_SUMMARIZER")
