"""One request to a model's HTTP endpoint, with its time-out and its typed errors; shared by all clients.

It sends each request once. The caller decides about another one; the retries are those of the message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from worker.errors import MissingExtra, WorkerError
from worker.ground.durations import format_duration
from worker.ground.secrets import mask_secrets
from worker.ground.texts import shown
from worker.loops.thread_pool import run_in_thread_pool
from worker.models.failures import ModelUnavailable, failure, tls_context

try:
    import httpx
except ImportError as error:
    raise MissingExtra("recall", "an embedder or a reranker behind an endpoint") from error

_LONGEST_ANSWER = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that is asked in JSON.

    Attributes:
        client: The open client.
        url: The URL of all requests.
        prefix: The prefix of its settings, such as `WORKER_EMBEDDER`.
        limit: The longest time of one request, from its first byte to the last byte of the answer.
    """

    client: httpx.AsyncClient
    url: str
    prefix: str
    limit: timedelta
    key: SecretStr | None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str, *, prefix: str, limit: timedelta, key: SecretStr | None = None
    ) -> AsyncIterator[Endpoint]:
        """Opens a client, which lives as long as the block."""
        headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
        tls = await run_in_thread_pool(tls_context)
        # `ask` sets the time-out: the client's own starts again with each byte.
        async with httpx.AsyncClient(headers=headers, verify=tls, timeout=None) as client:  # noqa: S113
            yield cls(client, url, prefix, limit, key)

    async def ask(self, body: Mapping[str, object]) -> Any:  # noqa: ANN401 - any JSON
        """The endpoint's answer.

        Raises:
            RetryLater: The endpoint is busy or broken, and names a time to come back.
            ModelUnavailable: The endpoint is busy or broken and names no time, is too slow, cannot be reached, or gives
                an answer that is not valid.
            Fatal: The endpoint refuses the request.
        """
        where = mask_secrets(self.url)
        content = await run_in_thread_pool(_encoded, body)
        try:
            async with asyncio.timeout(self.limit.total_seconds()):
                answer, said = await self._post(content)
        except TimeoutError as error:
            took = format_duration(self.limit)
            raise ModelUnavailable(f"{where} did not answer within {took} ({self.prefix}_TIMEOUT)") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelUnavailable(f"{where} cannot be asked: {error or type(error).__name__}") from error
        if not answer.is_success:
            raise self._translated(answer, said)
        try:
            return await run_in_thread_pool(json.loads, said)
        except (ValueError, RecursionError) as error:
            raise ModelUnavailable(f"{where} gave an answer that is not JSON") from error

    async def _post(self, content: bytes) -> tuple[httpx.Response, bytes]:
        headers = {"content-type": "application/json"}
        async with self.client.stream("POST", self.url, content=content, headers=headers) as answer:
            said = bytearray()
            async for part in answer.aiter_bytes():
                said += part
                if len(said) > _LONGEST_ANSWER:
                    raise ModelUnavailable(f"{mask_secrets(self.url)} answered with more than {_LONGEST_ANSWER} bytes")
        return answer, bytes(said)

    def _translated(self, answer: httpx.Response, body: bytes) -> WorkerError:
        said = shown(body[:1000].decode("utf-8", "replace"))
        if self.key is not None:
            said = said.replace(self.key.get_secret_value(), "***")
        said = f"{mask_secrets(self.url)} answered {answer.status_code}: {said}"
        after = answer.headers.get("retry-after", "")
        return failure(answer.status_code, said, retry_after=after, prefix=self.prefix)


def _encoded(body: Mapping[str, object]) -> bytes:
    # In ASCII, because lone surrogates cannot be encoded in UTF-8.
    return json.dumps(body).encode()
