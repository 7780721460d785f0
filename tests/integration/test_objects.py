"""Objects in real folders, and in a store that is no folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
from obstore.store import MemoryStore
from pydantic import SecretStr

from tests.support.waiting import wait_until
from worker.bridge import run_async_in_new_loop, run_in_thread_pool
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores import objects
from worker.stores.objects import ObjectsFailed, ObjectStore, object_store
from worker.stores.settings import StoreSettings

T = TypeVar("T")


def ask(question: Callable[[ObjectStore], Awaitable[T]]) -> T:
    """What the configured store answers, on a loop of its own."""

    async def asked() -> T:
        return await question(await object_store())

    return run_async_in_new_loop(asked)


def use(settings: Settings, url: str) -> None:
    put_in_force(StoreSettings(objects_url=SecretStr(url)))


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_what_is_written_is_read_back(settings: Settings) -> None:
    """Bytes, in a folder of the data directory that nobody made before."""
    content = bytes(range(256)) * 40
    ask(lambda store: store.write("merged/c/1.mp3", content))
    assert ask(lambda store: store.read("merged/c/1.mp3")) == content
    assert files_in(settings.data_dir) == ["objects/merged/c/1.mp3"]


def test_a_files_content_is_written_from_its_path(tmp_path: Path, settings: Settings) -> None:
    """Larger than one part of an upload, and the file itself stays."""
    file = tmp_path / "large"
    file.write_bytes(os.urandom(12_000_000))
    ask(lambda store: store.write("large", file))
    assert (settings.data_dir / "objects" / "large").read_bytes() == file.read_bytes()
    assert files_in(settings.data_dir) == ["objects/large"]


def test_writing_again_replaces(settings: Settings) -> None:
    """The last content stands, alone."""
    ask(lambda store: store.write("a", b"long before"))
    ask(lambda store: store.write("a", b"after"))
    assert ask(lambda store: store.read("a")) == b"after"
    assert files_in(settings.data_dir) == ["objects/a"]


def test_whether_an_object_exists_is_known_before_and_after(settings: Settings) -> None:
    """A folder on the way to an object is none."""

    async def question(store: ObjectStore) -> list[bool]:
        before = await store.exists("a/b")
        await store.write("a/b", b"")
        return [before, await store.exists("a/b"), await store.exists("a"), await store.exists("a/c")]

    assert ask(question) == [False, True, False, False]


def test_what_is_not_there_is_a_file_not_found_error(tmp_path: Path, settings: Settings) -> None:
    """For reading and for fetching, and nothing is left behind."""
    for question in (lambda store: store.read("a/b"), lambda store: store.fetch("a/b", tmp_path)):
        with pytest.raises(FileNotFoundError):
            ask(question)
    assert files_in(tmp_path) == []


def test_a_fetched_object_is_the_file_itself_where_there_is_one(tmp_path: Path, settings: Settings) -> None:
    """Nothing is copied."""
    ask(lambda store: store.write("chunks/c/1.ogg", b"audio"))
    into = tmp_path / "into"
    into.mkdir()
    fetched = ask(lambda store: store.fetch("chunks/c/1.ogg", into))
    assert fetched == settings.data_dir / "objects" / "chunks" / "c" / "1.ogg"
    assert str(fetched) == ask(lambda store: _location(store, "chunks/c/1.ogg"))
    assert files_in(into) == []


async def _location(store: ObjectStore, key: str) -> str:
    return store.location(key)


NAMES = ["a b.wav", "50%.wav", "a%20b.wav", "a#1.wav", "[1] (2).ogg", "what?.ogg", "ü.ogg", "~a^b{c}.ogg", "..ogg"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_recordings_have_are_kept_as_they_are(tmp_path: Path, settings: Settings, name: str) -> None:
    """Written, fetched and shown under the same name."""
    key = f"chunks/c/{name}"
    ask(lambda store: store.write(key, b"audio"))
    fetched = ask(lambda store: store.fetch(key, tmp_path))
    assert (fetched.name, fetched.read_bytes()) == (name, b"audio")
    assert ask(lambda store: _location(store, key)) == str(fetched)


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/../outside"])
def test_no_key_leads_out_of_the_folder(settings: Settings, key: str) -> None:
    """Whatever somebody wrote into the database."""
    with pytest.raises(ValueError, match="path"):
        ask(lambda store: store.write(key, b"x"))
    assert not (settings.data_dir / "outside").exists()


def test_a_url_with_encoded_characters_names_the_folder_it_means(tmp_path: Path, settings: Settings) -> None:
    """Spaces, percent signs and other scripts, as `Path.as_uri` writes them."""
    folder = tmp_path / "my voice notes, 100 % für c#"
    use(settings, folder.as_uri())
    ask(lambda store: store.write("a/b", b"x"))
    assert files_in(folder) == ["a/b"]
    assert ask(lambda store: store.fetch("a/b", tmp_path)) == folder / "a" / "b"
    assert not settings.data_dir.exists()


BAD_URLS = {
    "no URL": "nonsense",
    "a path": "/somewhere/else",
    "no such scheme": "foo://me:hunter2@host/x",
    "no bucket": "s3://",
    "no address": "http://me:hunter2@[bad",
    "a relative folder": "file://objects",
    "another machine": "file://server/share",
    "no folder": "file:",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_an_objects_url_that_cannot_be_used_is_one_line_without_the_password(settings: Settings, url: str) -> None:
    """It names the variable and what to write instead."""
    use(settings, url)
    with pytest.raises(ConfigurationError) as raised:
        ask(lambda store: store.exists("worker-test-of-bad-urls"))
    said = str(raised.value)
    assert said.startswith("WORKER_OBJECTS_URL=")
    assert "file:///folder" in said
    assert "\n" not in said
    assert "hunter2" not in said


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, settings: Settings) -> None:
    """A file stands where it should be, or above it."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "objects"):
        use(settings, folder.as_uri())
        with pytest.raises(ConfigurationError) as raised:
            ask(lambda store: store.exists("a"))
        assert str(raised.value).startswith(f"WORKER_OBJECTS_URL={folder.as_uri()}")
        assert "\n" not in str(raised.value)


def test_a_write_that_fails_leaves_the_object_as_it_was(tmp_path: Path, settings: Settings) -> None:
    """Neither half of the new one nor a file beside it."""
    ask(lambda store: store.write("a", b"before"))
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(Exception, match=r".") as raised:
            ask(lambda store, content=missing: store.write("a", content))  # type: ignore[misc]
        assert not isinstance(raised.value, AssertionError)
    assert ask(lambda store: store.read("a")) == b"before"
    assert files_in(settings.data_dir) == ["objects/a"]


def test_who_reads_while_somebody_writes_sees_one_content_or_the_other(settings: Settings) -> None:
    """Two megabytes of one letter, replaced by as many of another, twenty times."""

    async def question(store: ObjectStore) -> set[bytes]:
        seen: set[bytes] = set()
        await store.write("a", b"-" * 2_000_000)
        ended = asyncio.Event()

        async def read() -> None:
            while not ended.is_set():
                content = await store.read("a")
                assert len(content) == 2_000_000
                assert content.count(content[:1]) == len(content)
                seen.add(content[:1])
                assert (await run_in_thread_pool((await store.fetch("a", Path())).stat)).st_size == 2_000_000

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for number in range(20):
                await store.write("a", bytes([65 + number]) * 2_000_000)
            ended.set()
        return seen

    assert ask(question)


WRITE = """
import sys
from pathlib import Path
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.objects import object_store

async def write():
    store = await object_store()
    number = 0
    while True:
        await store.write("a", bytes([65 + number % 26]) * 20_000_000)
        print(number, flush=True)
        number += 1

put_in_force(Settings(data_dir=sys.argv[1]))
run_async_in_new_loop(write)
"""


def test_a_process_killed_while_it_writes_leaves_a_whole_object(settings: Settings) -> None:
    """The one before or the one after, of twenty megabytes."""
    with subprocess.Popen([sys.executable, "-c", WRITE, settings.data_dir], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        folder = settings.data_dir / "objects"
        wait_until(lambda: len(files_in(folder)) > 1)  # a second write has begun, beside the first object
        process.send_signal(signal.SIGKILL)
    content = ask(lambda store: store.read("a"))
    assert content == content[:1] * 20_000_000
    ask(lambda store: store.write("a", b"later"))
    assert ask(lambda store: store.read("a")) == b"later"


async def test_a_store_that_is_no_folder_hands_out_copies(tmp_path: Path) -> None:
    """In the folder that is named, larger than one part of a download."""
    store = ObjectStore(MemoryStore(), "s3://bucket/prefix/")
    content = os.urandom(12_000_000)
    await store.write("chunks/c/1.ogg", content)
    fetched = await store.fetch("chunks/c/1.ogg", tmp_path)
    assert fetched.parent == tmp_path
    assert fetched.suffix == ".ogg"
    assert await run_in_thread_pool(fetched.read_bytes) == content
    assert store.location("chunks/c/1.ogg") == "s3://bucket/prefix/chunks/c/1.ogg"
    with pytest.raises(FileNotFoundError):
        await store.fetch("missing", tmp_path)
    assert files_in(tmp_path) == [fetched.name]


class _Refusal(BaseHTTPRequestHandler):
    """An S3 that refuses everything, in several lines, with a secret among them."""

    body = b"<Error>\n<Code>AccessDenied</Code>\ntoken=hunter2\n</Error>"

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        self.send_response(403)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_HEAD = do_PUT = do_GET  # noqa: N815 - as the library names them

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - as the library names it


@pytest.fixture
def s3(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with an S3 that refuses everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        variables = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "eu", "ALLOW_HTTP": "true"}
        variables["ENDPOINT_URL"] = f"http://127.0.0.1:{server.server_address[1]}"
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        use(settings, "s3://recordings/production")
        yield settings
        server.shutdown()
        thread.join()


QUESTIONS: dict[str, Callable[[ObjectStore, Path], Awaitable[object]]] = {
    "exists": lambda store, _: store.exists("a/b"),
    "read": lambda store, _: store.read("a/b"),
    "write": lambda store, _: store.write("a/b", b"x"),
    "fetch": lambda store, into: store.fetch("a/b", into),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("away", [False, True], ids=["refuses", "is away"])
def test_an_s3_that_fails_is_one_line(
    s3: Settings,
    tmp_path: Path,
    question: Callable[[ObjectStore, Path], Awaitable[object]],
    away: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It names the object, and what the server said, without its secrets; and it is typed."""
    monkeypatch.setattr(objects, "_PATIENCE", timedelta(seconds=0.5))
    if away:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ObjectsFailed) as raised:
        ask(lambda store: question(store, tmp_path))
    said = str(raised.value)
    assert said.startswith("the object s3://recordings/production/a/b cannot be read or written: ")
    assert ("error sending request" if away else "403 Forbidden") in said
    assert "\n" not in said
    assert "hunter2" not in said
    assert len(said) < 700


async def test_copies_of_two_objects_are_two_files(tmp_path: Path) -> None:
    """However much alike their keys look, and however long they are."""
    store = ObjectStore(MemoryStore(), "s3://bucket")
    keys = ["a/b_c", "a_b/c", "a/b/c", "long/" + "x" * 200 + "/" + "y" * 200]
    for key in keys:
        await store.write(key, key.encode())
    fetched = [await store.fetch(key, tmp_path) for key in keys]
    assert [await run_in_thread_pool(file.read_bytes) for file in fetched] == [key.encode() for key in keys]
