"""Objects in a real S3, also one that refuses for a while, is slow, or does not answer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import SecretStr

from tests.support.postgres import Postgres
from tests.support.s3 import S3, Door, door_before
from worker.bridge import run_async_in_new_loop, run_in_thread_pool
from worker.conversations.importing import import_conversation
from worker.conversations.merging import merge_conversation
from worker.conversations.summarizing import summarize_conversation
from worker.settings.groups import put_in_force
from worker.stores import objects
from worker.stores.conversations import conversation_store
from worker.stores.objects import ObjectsFailed, ObjectStore, object_store
from worker.stores.settings import StoreSettings

T = TypeVar("T")

NAMES = ["a b.wav", "50%.wav", "a%20b.wav", "a#1.wav", "[1] (2).ogg", "what?.ogg", "ü.ogg", "~a^b{c}.ogg", "..ogg"]
LARGE = 12_000_000
SAMPLE = Path(str(files("worker") / "sample"))


def ask(question: Callable[[ObjectStore], Awaitable[T]]) -> T:
    """What the configured store answers, on a loop of its own."""

    async def asked() -> T:
        return await question(await object_store())

    return run_async_in_new_loop(asked)


def test_what_is_written_is_read_back_and_replaced(bucket: Door) -> None:
    """Bytes; the last content stands, and only what was written exists."""

    async def question(store: ObjectStore) -> None:
        content = bytes(range(256)) * 40
        assert not await store.exists("merged/c/1.mp3")
        await store.write("merged/c/1.mp3", b"long before")
        await store.write("merged/c/1.mp3", content)
        assert await store.read("merged/c/1.mp3") == content
        assert await store.exists("merged/c/1.mp3")
        assert not await store.exists("merged/c")

    ask(question)


def test_what_is_not_there_is_a_file_not_found_error(bucket: Door, tmp_path: Path) -> None:
    """For reading and for fetching; it names the object, and no file is left."""
    for question in (lambda store: store.read("a/b"), lambda store: store.fetch("a/b", tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"there is no object s3://.*/production/a/b"):
            ask(question)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_that_recordings_have_are_kept_as_they_are(bucket: Door, tmp_path: Path, name: str) -> None:
    """Written, found, fetched and read under the same name."""

    async def question(store: ObjectStore) -> None:
        key = f"chunks/c/{name}"
        await store.write(key, b"audio")
        assert await store.exists(key)
        assert await store.read(key) == b"audio"
        assert await run_in_thread_pool((await store.fetch(key, tmp_path)).read_bytes) == b"audio"

    ask(question)


def test_a_large_file_is_stored_in_parts_and_fetched_whole(bucket: Door, tmp_path: Path) -> None:
    """From its path, and the file itself stays."""
    file = tmp_path / "large.wav"
    file.write_bytes(os.urandom(LARGE))
    into = tmp_path / "into"
    into.mkdir()

    async def question(store: ObjectStore) -> Path:
        await store.write("large.wav", file)
        return await store.fetch("large.wav", into)

    assert ask(question).read_bytes() == file.read_bytes()


async def use_all(store: ObjectStore, into: Path, number: int) -> None:
    """Every method, and what it answers."""
    key = f"chunks/{number}.ogg"
    await store.write(key, key.encode())
    assert await store.exists(key)
    assert await store.read(key) == key.encode()
    assert await run_in_thread_pool((await store.fetch(key, into)).read_bytes) == key.encode()


def test_refusals_of_25_seconds_delay_what_is_asked(bucket: Door, tmp_path: Path) -> None:
    """All of it is done afterwards, and the waiting requests come seldom."""

    async def question(store: ObjectStore) -> int:
        await use_all(store, tmp_path, 0)
        bucket.refuses = True
        before = bucket.asked
        threading.Timer(25, lambda: setattr(bucket, "refuses", False)).start()
        asked = [use_all(store, tmp_path, number) for number in range(1, 5)]
        asked += [use_all(store, tmp_path, 0)]
        await asyncio.gather(*asked)
        return bucket.asked - before

    assert ask(question) < 500


def test_a_server_that_restarts_is_waited_for(bucket: Door, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked while nobody listens is done when somebody does."""
    with door_before(s3) as before:
        monkeypatch.setenv("AWS_ENDPOINT_URL", before.url)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask, lambda store: store.write("a", b"x"))
        assert not wait([asked], timeout=0.5).done
        with door_before(s3, before.server_address[1]):
            asked.result()
            assert ask(lambda store: store.read("a")) == b"x"


def test_a_conversation_is_imported_merged_and_summarized_there(bucket: Door, postgres: Postgres) -> None:
    """Its audio in S3 and its results in PostgreSQL, whose restarts between the steps are not noticed."""
    objects_url = StoreSettings.in_force().objects_url
    database_url = SecretStr(postgres.url(postgres.create()))
    put_in_force(StoreSettings(objects_url=objects_url, database_url=database_url))

    async def question() -> None:
        assert (await import_conversation(SAMPLE, "call")).chunks == 5
        postgres.stop()
        postgres.start()
        merged = await merge_conversation("call")
        postgres.stop()
        postgres.start()
        await summarize_conversation("call")
        found = await (await conversation_store()).get("call")
        assert found is not None
        assert found.summary
        assert found.merged_key == merged.key
        assert len(await (await object_store()).read(merged.key)) > 10_000

    run_async_in_new_loop(question)


QUESTIONS: dict[str, Callable[[ObjectStore, Path], Awaitable[object]]] = {
    "exists": lambda store, _: store.exists("a/b"),
    "read": lambda store, _: store.read("a/b"),
    "write": lambda store, _: store.write("a/b", b"x"),
    "fetch": lambda store, into: store.fetch("a/b", into),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are given up after two seconds, and none is tried again after that."""
    monkeypatch.setattr(objects, "_PATIENCE", timedelta(seconds=2))
    monkeypatch.setenv("AWS_TIMEOUT", "2s")


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "does not answer"])
def test_a_store_that_goes_on_failing_is_given_up_within_its_bound(
    bucket: Door,
    impatient: None,
    tmp_path: Path,
    question: Callable[[ObjectStore, Path], Awaitable[object]],
    silent: bool,
) -> None:
    """Retries included; one line tells it, and the store can be used as before when its server is back."""

    async def asked(store: ObjectStore) -> float:
        await use_all(store, tmp_path, 0)
        bucket.refuses, bucket.pause = not silent, 60 if silent else 0
        began = time.monotonic()
        with pytest.raises(ObjectsFailed) as raised:
            await question(store, tmp_path)
        took = time.monotonic() - began
        assert "\n" not in str(raised.value)
        assert "/production/a/b cannot be read or written: " in str(raised.value)
        bucket.refuses, bucket.pause = False, 0
        await use_all(store, tmp_path, 1)
        return took

    assert ask(asked) < 10


def test_a_slow_store_is_waited_for(bucket: Door, impatient: None, tmp_path: Path) -> None:
    """Each answer comes a second late."""
    bucket.pause = 1
    ask(lambda store: use_all(store, tmp_path, 0))


def test_a_bucket_that_is_not_there_is_one_line(bucket: Door) -> None:
    """It names the object, and the setting with the bucket, and does not say that the object is missing."""
    put_in_force(StoreSettings(objects_url=SecretStr("s3://nobody-made-it")))
    for question in (lambda store: store.write("a", b"x"), lambda store: store.read("a")):
        with pytest.raises(ObjectsFailed, match="no such bucket; see WORKER_OBJECTS_URL$") as raised:
            ask(question)
        assert "\n" not in str(raised.value)
