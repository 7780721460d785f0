"""Summarizing a stored conversation: real SQLite, the embedded summarizer, and a model behind a local HTTP server."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.model_endpoint import Answer, ModelEndpoint, Request, as_json, fails, model_endpoint, says
from worker.bridge import run_async_in_new_loop
from worker.conversations.importing import import_conversation
from worker.conversations.settings import ConversationSettings
from worker.conversations.summarizing import Summary, summarize_conversation
from worker.errors import Fatal, NoContentFound, RetryLater, Unchanged, WorkerError
from worker.models.failures import ModelUnavailable
from worker.models.settings import ModelSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.conversations import Chunk, Conversation, conversation_store

SAMPLE = Path(str(files("worker") / "sample"))
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ZONE_OF_DATES = re.compile(r" (\+0000|GMT)$")


def summarize(conversation_id: str, language: str | None = None) -> Summary:
    return run_async_in_new_loop(summarize_conversation(conversation_id, language))


def keep(conversation_id: str, *transcripts: str | None) -> None:
    """A conversation of these transcripts, a second apart."""
    chunks = [
        Chunk(id=f"{conversation_id}-{number}", started_at=NOON + timedelta(seconds=number), transcript=transcript)
        for number, transcript in enumerate(transcripts)
    ]

    async def create() -> None:
        await (await conversation_store()).create(conversation_id, chunks)

    run_async_in_new_loop(create)


def recorded(conversation_id: str) -> Conversation:
    async def get() -> Conversation | None:
        return await (await conversation_store()).get(conversation_id)

    found = run_async_in_new_loop(get)
    assert found is not None
    return found


def use(*, summary_words: int = 150, **values: Any) -> None:
    put_in_force(ConversationSettings(summary_words=summary_words))
    put_in_force(ModelSettings(**values))


@contextlib.contextmanager
def asked(*answers: Answer, otherwise: Any = None, **values: Any) -> Iterator[ModelEndpoint]:
    """A model's endpoint that the settings in force name."""
    options = {} if otherwise is None else {"otherwise": otherwise}
    with model_endpoint(*answers, **options) as endpoint:
        configured = {"summarizer": "openai", "summarizer_url": endpoint.url, "summarizer_model": "model-1"}
        use(**configured | values)
        yield endpoint


def sentences(count: int, *, words: int = 10) -> list[str]:
    """As many different sentences of so many words."""
    return [f"Sentence{number} " + " ".join(["goes on"] * ((words - 2) // 2)) + " here." for number in range(count)]


def test_the_sample_is_summarized_by_its_own_sentences(settings: Settings) -> None:
    """Offline, and the summary is kept."""
    run_async_in_new_loop(import_conversation(SAMPLE, "sample"))
    summary = summarize("sample")
    spoken = " ".join(line for file in sorted(SAMPLE.glob("*.txt")) for line in file.read_text().splitlines())
    assert summary.text
    assert set(summary.text.splitlines()) <= set(re.findall(r"\S.*?\.(?=\s|$)", spoken))
    assert summary.words_read == len(spoken.split())
    assert summary.describe() == f"{len(summary.text.split())} words from {summary.words_read}"
    assert recorded("sample").summary == summary.text


def test_a_summary_has_no_more_words_than_are_configured(settings: Settings) -> None:
    """As many of the most telling sentences as fit."""
    keep("limited", "\n".join(sentences(200, words=12)))
    use(summary_words=30)
    assert 0 < len(summarize("limited").text.split()) <= 30


@pytest.mark.parametrize(
    "transcripts",
    [(), (None,), ("", None), ("  \n\t\n ",), ("\0\0", "\x07"), ("\ufeff",), ("\u200b",)],
    ids=["no chunks", "no transcript", "empty", "white space", "control characters", "byte order mark", "zero width"],
)
def test_a_transcript_with_nothing_to_read_is_no_content(settings: Settings, transcripts: Sequence[str | None]) -> None:
    """Skipped, and no summary is kept."""
    keep("empty", *transcripts)
    with pytest.raises(NoContentFound, match="'empty' has no transcript") as raised:
        summarize("empty")
    assert not isinstance(raised.value, Unchanged)
    assert recorded("empty").summary is None


def test_an_unknown_conversation_is_no_content(settings: Settings) -> None:
    """Skipped, and nothing is recorded of it."""
    with pytest.raises(NoContentFound, match="'nobody'"):
        summarize("nobody")


@pytest.mark.parametrize("transcript", ["...", "?! …", "😀 😀", "uh", "{gap}", "1"])
def test_a_transcript_of_next_to_nothing_does_not_fail(settings: Settings, transcript: str) -> None:
    """It is summarized or skipped, and never retried."""
    keep("little", transcript)
    with contextlib.suppress(NoContentFound):
        assert summarize("little").text


def test_control_characters_do_not_reach_the_model(settings: Settings) -> None:
    """NULs and the like become the space between words."""
    keep("dirty", "One\0two\x1b three.\r\nFour\x0bfive.", "six\x85seven.\0")
    with asked() as endpoint:
        summarize("dirty")
    [request] = endpoint.requests
    assert request.text == "One two three.\nFour\nfive.\nsix\nseven."


def test_the_transcripts_are_read_in_the_order_of_their_times(settings: Settings) -> None:
    """A line each."""
    keep("ordered", "First.", None, "Second.", "Third.")
    with asked() as endpoint:
        summarize("ordered")
    assert [request.text for request in endpoint.requests] == ["First.\nSecond.\nThird."]


def test_the_same_transcript_summarized_twice_is_unchanged(settings: Settings) -> None:
    """The model is asked once, and its summary stands."""
    keep("again", "Something was said.")
    with asked(says("Said once."), says("Said twice.")) as endpoint:
        summarize("again")
        for _ in range(2):
            with pytest.raises(Unchanged, match="^unchanged$"):
                summarize("again")
        assert len(endpoint.requests) == 1
    assert recorded("again").summary == "Said once."


def test_whatever_changes_the_summary_has_it_made_anew(settings: Settings) -> None:
    """The transcript, the language, the model, the number of words, the kind of summarizer."""
    keep("changing", "Something was said.")
    with asked() as endpoint:
        model: dict[str, Any] = {
            "summarizer": "openai",
            "summarizer_url": endpoint.url,
            "summarizer_model": "model-1",
        }
        summarize("changing")
        summarize("changing", "German")
        use(**model | {"summarizer_model": "model-2"})
        summarize("changing", "German")
        use(**model | {"summary_words": 20})
        summarize("changing", "German")
        keep("more", "Something else was said.")
        summarize("more", "German")
        assert len(endpoint.requests) == 5
    use()
    assert summarize("changing", "German").text == "Something was said."
    with pytest.raises(Unchanged):
        summarize("changing", "German")


def test_the_model_is_asked_as_configured(settings: Settings) -> None:
    """The path, the model, the key, the number of words and the language."""
    keep("asked", "Something was said.")
    with asked(summarizer_api_key=SecretStr("key-1"), summary_words=77) as endpoint:
        summary = summarize("asked", "German")
    [request] = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key-1"
    assert request.body["model"] == "model-1"
    assert "77 words" in request.instruction
    assert "German" in request.instruction
    assert summary.text == "A summary."


def test_a_developers_openai_account_is_not_used(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read in one place: what other programs' variables say goes nowhere."""
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://private.invalid")
    keep("private", "Something was said.")
    with asked() as endpoint:
        summarize("private")
    [request] = endpoint.requests
    assert not [name for name, value in request.headers.items() if "private.invalid" in value]


def test_a_long_transcript_is_split_and_the_summaries_are_summarized(settings: Settings) -> None:
    """Every sentence is read once, in order, and no request holds more than the model takes."""
    said = sentences(45)
    keep("long", "\n".join(said[:20]), "\n".join(said[20:]))

    def answer(request: Request) -> Answer:
        names = re.findall(r"Sentence\d+|Part\d+", request.text)
        return says(f"Part{names[0].removeprefix('Sentence')} is over.")

    with asked(otherwise=answer, summarizer_context_words=100) as endpoint:
        summary = summarize("long")
    *parts, last = endpoint.requests
    assert all(len(request.text.split()) <= 100 for request in endpoint.requests)
    by_start = sorted(parts, key=lambda request: int(re.findall(r"\d+", request.text)[0]))
    assert "\n".join(request.text for request in by_start) == "\n".join(said)
    assert len(parts) == 5
    assert last.text == "Part0 is over.\nPart10 is over.\nPart20 is over.\nPart30 is over.\nPart40 is over."
    assert "150 words" in last.instruction
    assert summary.text == "PartPart0 is over."
    assert summary.words_read == 450


def test_summaries_too_long_for_the_model_are_summarized_again(settings: Settings) -> None:
    """Even a model that answers with more than it was asked for comes to an end."""
    keep("very long", "\n".join(sentences(300)))
    chatter = " ".join(["word"] * 500)
    with asked(otherwise=lambda _: says(chatter), summarizer_context_words=100) as endpoint:
        summarize("very long")
    sizes = [len(request.text.split()) for request in endpoint.requests]
    assert max(sizes) <= 100
    assert len(sizes) < 60


def test_text_without_spaces_is_split_too(settings: Settings) -> None:
    """Japanese has no space between words, and a model takes no more of it than of English."""
    keep("japanese", "会議は九時に始まりました。" * 2_000)
    with asked(summarizer_context_words=100) as endpoint:
        summarize("japanese")
    assert len(endpoint.requests) > 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_a_busy_model_is_asked_again_after_as_many_seconds_as_it_says(settings: Settings, status: int) -> None:
    """RetryLater, with that delay, after one request."""
    keep("busy", "Something was said.")
    with asked(fails(status, retry_after="7")) as endpoint:
        with pytest.raises(RetryLater, match=f"{status}: .*this is a {status}") as raised:
            summarize("busy")
        assert len(endpoint.requests) == 1
    assert raised.value.delay == timedelta(seconds=7)
    assert recorded("busy").summary is None


def test_a_busy_model_is_asked_again_at_the_date_it_says(settings: Settings) -> None:
    """As HTTP writes dates; one that has passed means now."""
    keep("busy", "Something was said.")
    later = ZONE_OF_DATES.sub(" GMT", format_datetime(datetime.now(UTC) + timedelta(minutes=2)))
    answers = fails(429, retry_after=later), fails(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
    with asked(*answers):
        with pytest.raises(RetryLater) as raised:
            summarize("busy")
        assert timedelta(seconds=100) < raised.value.delay <= timedelta(seconds=121)
        with pytest.raises(RetryLater) as raised:
            summarize("busy")
        assert raised.value.delay == timedelta(0)


def test_no_model_puts_a_message_off_for_longer_than_an_hour(settings: Settings) -> None:
    """Whatever it says."""
    keep("busy", "Something was said.")
    with asked(fails(429, retry_after="31536000")), pytest.raises(RetryLater) as raised:
        summarize("busy")
    assert raised.value.delay == timedelta(hours=1)


@pytest.mark.parametrize("header", [None, "", "soon", "nan", "inf", "-5", "Wed, 99 Xxx 2015 07:28:00 GMT"])
def test_a_busy_model_that_does_not_say_when_is_asked_again(settings: Settings, header: str | None) -> None:
    """With the backoff of any other error, or at once: never for good."""
    keep("busy", "Something was said.")
    answer = fails(500) if header is None else fails(500, retry_after=header)
    with asked(answer), pytest.raises(WorkerError, match="500") as raised:
        summarize("busy")
    assert isinstance(raised.value, ModelUnavailable | RetryLater)
    assert not isinstance(raised.value, Fatal | NoContentFound)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_model_that_refuses_is_not_asked_again(settings: Settings, status: int) -> None:
    """Fatal, in one line that says what it said and which settings to look at."""
    keep("refused", "Something was said.")
    with asked(fails(status)) as endpoint:
        with pytest.raises(Fatal, match=f"{status}.*this is a {status}.*WORKER_SUMMARIZER_URL"):
            summarize("refused")
        assert len(endpoint.requests) == 1
    assert recorded("refused").summary is None


def test_one_parts_error_is_the_error(settings: Settings) -> None:
    """Not a group of errors: what the model said of one part decides about the message."""
    keep("long", "\n".join(sentences(30)))
    with (
        asked(says("Fine."), fails(429, retry_after="9"), summarizer_context_words=100),
        pytest.raises(RetryLater) as raised,
    ):
        summarize("long")
    assert raised.value.delay == timedelta(seconds=9)


NONSENSE = {
    "no JSON": Answer(body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
    "broken JSON": Answer(body=b'{"choices": [{"mess'),
    "empty body": Answer(body=b""),
    "a list": as_json([1, 2]),
    "a string": as_json("summary"),
    "null": as_json(None),
    "an empty object": as_json({}),
    "choices are null": as_json({"choices": None}),
    "no choice": as_json({"choices": []}),
    "choices are a string": as_json({"choices": "summary"}),
    "an empty choice": as_json({"choices": [{}]}),
    "no message": as_json({"choices": [{"message": None}]}),
    "no content": says(None),
    "empty content": says(""),
    "blank content": says(" \n"),
    "content is a number": as_json({"choices": [{"message": {"role": "assistant", "content": 5}}]}),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
def test_an_answer_that_makes_no_sense_is_retried(settings: Settings, answer: Answer) -> None:
    """It is an error of the model's, named as such, and no summary is kept."""
    keep("nonsense", "Something was said.")
    with asked(answer) as endpoint:
        with pytest.raises(ModelUnavailable):
            summarize("nonsense")
        assert len(endpoint.requests) == 1
    assert recorded("nonsense").summary is None


def test_control_characters_of_a_model_are_not_kept(settings: Settings) -> None:
    """A database need not take a NUL."""
    keep("dirty", "Something was said.")
    with asked(says("A\0 summary.")):
        assert "\0" not in summarize("dirty").text


def test_a_model_out_of_reach_is_retried(settings: Settings) -> None:
    """The error names the address."""
    keep("away", "Something was said.")
    with asked() as endpoint:
        url = endpoint.url
    with pytest.raises(ModelUnavailable, match=re.escape(url)):
        summarize("away")


@pytest.mark.parametrize(
    "answer",
    [Answer(silent=True), Answer(body=says("A summary.").body, dribble=0.03)],
    ids=["says nothing", "says it byte by byte"],
)
def test_a_request_takes_no_longer_than_its_time_out(settings: Settings, answer: Answer) -> None:
    """It is retried: `WORKER_SUMMARIZER_TIMEOUT` is how long one request may take."""
    keep("slow", "Something was said.")
    started = time.monotonic()
    with (
        asked(answer, summarizer_timeout=timedelta(milliseconds=200)),
        pytest.raises((ModelUnavailable, TimeoutError)),
    ):
        summarize("slow")
    assert time.monotonic() - started < 30
    assert recorded("slow").summary is None


def test_no_error_shows_a_password_or_a_key(settings: Settings) -> None:
    """Neither that in the URL nor a key that the endpoint repeats."""
    keep("secret", "Something was said.")
    refusal = Answer(status=401, body=b'{"error": {"message": "Incorrect API key provided: key-hunter2"}}')
    with asked(refusal, summarizer_api_key=SecretStr("key-hunter2")) as endpoint:
        with pytest.raises(Fatal) as refused:
            summarize("secret")
        url = endpoint.url.replace("//", "//me:hunter2@")
    use(summarizer="openai", summarizer_url=url, summarizer_model="model-1")
    with pytest.raises(ModelUnavailable) as unreachable:
        summarize("secret")
    assert "hunter2" not in str(unreachable.value)
    assert "hunter2" not in str(refused.value)
