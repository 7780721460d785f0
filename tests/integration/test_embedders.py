"""Embedders and rerankers: the embedded model, and endpoints behind a local HTTP server."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from tests.support.model_endpoint import Answer, ModelEndpoint, Request, as_json, fails, model_endpoint
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError, Fatal, RetryLater
from worker.models import embedder as embedders
from worker.models.embedder import EmbeddedEmbedder, Embedder, Vectors, embedder
from worker.models.failures import ModelUnavailable
from worker.models.reranker import Reranker, reranker
from worker.models.settings import ModelSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force

DIMENSIONS = 4


def embed(*texts: str) -> Vectors:
    """What the configured embedder makes of texts."""

    async def asked() -> Vectors:
        return await (await embedder()).embed(texts)

    return run_async_in_new_loop(asked)


def rank(question: str, *texts: str) -> list[float]:
    """What the configured reranker makes of texts."""

    async def asked() -> list[float]:
        model = await reranker()
        assert model is not None
        return await model.rank(question, texts)

    return run_async_in_new_loop(asked)


def embeddings(request: Request) -> Answer:
    """For each text a vector that says how long it is; in reverse order, as an endpoint may."""
    data = [{"index": n, "embedding": [len(text), 1, 0, 0]} for n, text in enumerate(request.body["input"])]
    return as_json({"object": "list", "data": data[::-1], "model": "m"})


def scores(request: Request) -> Answer:
    """The longest text is the best."""
    results = [{"index": n, "relevance_score": len(text)} for n, text in enumerate(request.body["documents"])]
    return as_json({"results": results[::-1]})


@contextlib.contextmanager
def asked(*answers: Answer, otherwise: Callable[[Request], Answer], **values: Any) -> Iterator[ModelEndpoint]:
    """An endpoint that the settings in force name, for embeddings and for reranking."""
    with model_endpoint(*answers, otherwise=otherwise) as endpoint:
        configured: dict[str, Any] = {
            "embedder": "openai",
            "embedder_url": endpoint.url,
            "embedder_model": "model-1",
            "embedder_dimensions": DIMENSIONS,
            "reranker_url": endpoint.url,
            "reranker_model": "model-2",
        }
        put_in_force(ModelSettings(**configured | values))
        yield endpoint


def test_texts_that_mean_the_same_are_near_each_other(settings: Settings) -> None:
    """Offline, and of length 1."""
    vectors = embed("read a file from the disk", "load a document from storage", "bake a cake with apples")
    assert vectors.shape == (3, EmbeddedEmbedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.2


def test_a_name_counts_as_its_parts_and_the_title_more_than_the_text(settings: Settings) -> None:
    """However the name is written."""
    snake, camel, spoken, titled, untitled = embed(
        "parse_http_reply",
        "parseHTTPReply",
        "parse http reply",
        "parse a reply\nboil the potatoes and add butter",
        "\nboil the potatoes and add butter to parse a reply",
    )
    assert np.array_equal(snake, camel)
    assert np.array_equal(snake, spoken)
    assert snake @ titled > snake @ untitled


@pytest.mark.parametrize("nothing", ["", "   ", "\0", "\ud800", "\n" * 10_000])
def test_a_text_of_nothing_has_a_vector_too(settings: Settings, nothing: str) -> None:
    """And changes nobody else's."""
    vectors = embed("one thing", nothing, "another thing")
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors[[0, 2]], embed("one thing", "another thing"))


def test_no_texts_have_no_vectors(settings: Settings) -> None:
    """No request is made for them."""
    assert embed().shape == (0, EmbeddedEmbedder.dimensions)
    with asked(otherwise=embeddings) as endpoint:
        assert embed().shape == (0, DIMENSIONS)
        assert endpoint.requests == []


def test_many_texts_are_the_same_as_one_by_one(settings: Settings) -> None:
    """Whatever they are batched with."""
    texts = [f"text number {number} " * (number % 7 * 40) for number in range(60)]
    assert np.array_equal(embed(*texts), np.concatenate([embed(text) for text in texts]))


def test_the_model_is_loaded_once_by_threads_at_once(settings: Settings) -> None:
    """Every loop shares it."""
    found: list[Vectors] = []
    threads = [threading.Thread(target=lambda: found.append(embed("the same"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({vectors.tobytes() for vectors in found}) == 1


def test_an_endpoint_is_asked_in_batches_and_answers_in_any_order(settings: Settings) -> None:
    """Each text has its own vector, of length 1; the key is sent."""
    texts = ["x" * (number + 1) for number in range(150)]
    with asked(otherwise=embeddings, embedder_api_key=SecretStr("hunter2")) as endpoint:
        vectors = embed(*texts)
        requests = endpoint.requests
    assert sorted(len(request.body["input"]) for request in requests) == [22, 64, 64]
    assert {(r.path, r.headers["authorization"], r.body["model"]) for r in requests} == {
        ("/v1/embeddings", "Bearer hunter2", "model-1")
    }
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx(range(1, 151), rel=1e-4)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_texts_that_endpoints_refuse_are_not_sent(settings: Settings) -> None:
    """Nothing is sent as something, and too much is cut."""
    with asked(otherwise=embeddings) as endpoint:
        embed("", "x" * 100_000, "half \ud800")
        [request] = endpoint.requests
    assert [len(text) for text in request.body["input"]] == [1, embedders.LONGEST_TEXT, 6]


FAILURES = {
    "busy, and says when": (fails(429, retry_after="7"), RetryLater, "answered 429"),
    "broken, and says when": (fails(503, retry_after="7"), RetryLater, "answered 503"),
    "busy": (fails(429), ModelUnavailable, "answered 429"),
    "broken": (fails(500), ModelUnavailable, "answered 500"),
    "refused": (fails(401), Fatal, r"answered 401: .*; check WORKER_\w+_URL, _MODEL and _API_KEY"),
    "moved": (fails(301), Fatal, "answered 301"),
    "no JSON": (Answer(body=b"<html>"), ModelUnavailable, "gave an answer that is not JSON"),
    "deep JSON": (Answer(body=b"[" * 100_000), ModelUnavailable, "gave an answer that is not JSON"),
    "other JSON": (as_json(["x"]), ModelUnavailable, "answered with no"),
    "nothing": (as_json({"data": [], "results": []}), ModelUnavailable, "answered with no"),
    "no numbers": (
        as_json({"data": [{"index": 0, "embedding": "x"}], "results": [{"index": 0, "relevance_score": "x"}]}),
        ModelUnavailable,
        "answered with no",
    ),
    "not finite": (
        as_json(
            {"data": [{"index": 0, "embedding": [1e999] * 4}], "results": [{"index": 0, "relevance_score": 1e999}]}
        ),
        ModelUnavailable,
        "answered with",
    ),
}


@pytest.mark.parametrize("asks", [lambda: embed("x"), lambda: rank("x", "y")], ids=["embedder", "reranker"])
@pytest.mark.parametrize(("answer", "kind", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_what_an_endpoint_does_wrong_says_what_happens_next(
    settings: Settings, asks: Callable[[], object], answer: Answer, kind: type[Exception], said: str
) -> None:
    """To retry then, to retry, or to give up."""
    with asked(otherwise=lambda _: answer), pytest.raises(kind, match=said) as raised:
        asks()
    if isinstance(raised.value, RetryLater):
        assert raised.value.delay == timedelta(seconds=7)


def test_vectors_of_another_length_are_a_wrong_setting(settings: Settings) -> None:
    """The error says which number is right."""
    with asked(otherwise=embeddings, embedder_dimensions=3):
        with pytest.raises(ConfigurationError, match="WORKER_EMBEDDER_DIMENSIONS=3: model-1 answers with 4"):
            embed("x")


@pytest.mark.parametrize("slow", [Answer(silent=True), Answer(body=b"{}" * 100, dribble=0.01)], ids=["silent", "drips"])
def test_an_endpoint_that_is_too_slow_is_given_up(settings: Settings, slow: Answer) -> None:
    """Also one that sends a byte now and then; the error names the setting."""
    limits = dict.fromkeys(("embedder_timeout", "reranker_timeout"), timedelta(seconds=0.1))
    with asked(otherwise=lambda _: slow, **limits):
        with pytest.raises(ModelUnavailable, match=r"did not answer within 100 ?ms \(WORKER_EMBEDDER_TIMEOUT\)"):
            embed("x")
        with pytest.raises(ModelUnavailable, match=r"did not answer within 100 ?ms \(WORKER_RERANKER_TIMEOUT\)"):
            rank("x", "y")


def test_an_endpoint_out_of_reach_is_told_with_its_url(settings: Settings) -> None:
    """Without the password in it."""
    with asked(otherwise=embeddings) as endpoint:
        url = endpoint.url.replace("://", "://me:hunter2@")
    put_in_force(ModelSettings(reranker_url=url))
    with pytest.raises(ModelUnavailable, match=re.escape("://me:***@")) as raised:
        rank("x", "y")
    assert "hunter2" not in str(raised.value)


def test_the_key_is_in_no_error(settings: Settings) -> None:
    """Even if the endpoint repeats it."""
    answer = Answer(status=400, body=b'{"error": "hunter2 is no key"}')
    with asked(otherwise=lambda _: answer, embedder_api_key=SecretStr("hunter2")):
        with pytest.raises(Fatal) as raised:
            embed("x")
    assert "hunter2" not in str(raised.value)
    assert "*** is no key" in str(raised.value)


def test_a_reranker_scores_texts_in_their_order(settings: Settings) -> None:
    """It is asked in the form that Cohere and Jina share."""
    with asked(otherwise=scores, reranker_api_key=SecretStr("k")) as endpoint:
        assert rank("what?", "aa", "a", "aaa") == [2, 1, 3]
        [request] = endpoint.requests
    assert request.path == "/v1/rerank"
    assert request.headers["authorization"] == "Bearer k"
    assert request.body == {"model": "model-2", "query": "what?", "documents": ["aa", "a", "aaa"], "top_n": 3}


def test_nothing_is_reranked_by_default(settings: Settings) -> None:
    """There is no reranker."""
    assert run_async_in_new_loop(lambda: _none()) is None


async def _none() -> Reranker | None:
    return await reranker()


def test_an_embedder_behind_an_endpoint_needs_its_model_and_dimensions() -> None:
    """The index could not say who made it."""
    with pytest.raises(ValidationError, match="WORKER_EMBEDDER_MODEL"):
        ModelSettings(embedder="openai", embedder_model="m")


def test_each_embedder_has_a_name_of_its_own(settings: Settings) -> None:
    """By it the index tells whose vectors it holds."""

    async def names() -> Embedder:
        return await embedder()

    embedded = run_async_in_new_loop(names)
    with asked(otherwise=embeddings):
        asked_one = run_async_in_new_loop(names)
    assert (embedded.name, asked_one.name) == ("wordllama-2", "model-1")
