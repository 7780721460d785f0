"""Conversations and chunks in real SQLite files, and in a real PostgreSQL."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.postgres import Postgres
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores import conversations
from worker.stores.conversations import Chunk, Conversation, ConversationStore, conversation_store
from worker.stores.settings import StoreSettings

T = TypeVar("T")

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def ask(question: Callable[[ConversationStore], Awaitable[T]]) -> T:
    """What the configured store answers, on a loop and an engine of its own."""

    async def asked() -> T:
        return await question(await conversation_store())

    return run_async_in_new_loop(asked)


def chunk(name: str, seconds: float = 0) -> Chunk:
    return Chunk(id=name, started_at=NOON + timedelta(seconds=seconds), audio_key=f"{name}.ogg", transcript=name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings whose database is a SQLite file that nobody made, or an empty PostgreSQL."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        put_in_force(StoreSettings(database_url=SecretStr(server.url(server.create()))))
    return settings


def insert(table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes past the store, as older programs did: no foreign key is checked."""

    async def write() -> None:
        engine = create_async_engine(StoreSettings.in_force().database_url.get_secret_value())
        try:
            async with engine.begin() as connection:
                if engine.dialect.name == "postgresql":
                    await connection.execute(text("SET LOCAL session_replication_role = replica"))
                await connection.execute(table.insert(), rows)
        finally:
            await engine.dispose()

    if rows:
        run_async_in_new_loop(write)


def insert_legacy(conversation_id: str | None, names: Mapping[str, float]) -> None:
    """Chunks that name their conversation in themselves, or none; each with its seconds after noon."""
    rows = [
        {"id": name, "conversation_id": conversation_id, "started_at": NOON + timedelta(seconds=seconds)}
        for name, seconds in names.items()
    ]
    insert(conversations._chunks, rows)


def link(conversation_id: str, names: Iterable[str]) -> None:
    """Links chunks through the table."""
    insert(conversations._links, [{"chunk_id": name, "conversation_id": conversation_id} for name in names])


def names_of(conversation_id: str) -> list[str]:
    return [one.id for one in ask(lambda store: store.chunks(conversation_id))]


@pytest.fixture
def schema(database: Settings) -> Settings:
    """Settings whose database has its tables, and nothing in them."""
    assert ask(lambda store: store.get("nobody")) is None
    return database


class Linked(NamedTuple):
    """A chunk: its name, its time, and how it is linked to the conversation that is asked for."""

    name: str
    seconds: int
    directly: bool
    by_table: bool
    elsewhere: bool


CHUNKS = st.lists(
    st.builds(
        Linked,
        name=st.text("abAB01_-é", min_size=1, max_size=3),
        seconds=st.integers(0, 3),
        directly=st.booleans(),
        by_table=st.booleans(),
        elsewhere=st.booleans(),
    ),
    unique_by=lambda one: one.name,
    max_size=8,
)


@examples(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=CHUNKS)
def test_chunks_linked_either_way_come_once_each_by_time_and_then_id(schema: Settings, chunks: list[Linked]) -> None:
    """Whatever is linked directly, by the table, by both, or to other conversations too."""
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    for one in chunks:
        owner = mine if one.directly else other if one.elsewhere else None
        insert_legacy(owner, {f"{mine}/{one.name}": one.seconds})
    link(mine, [f"{mine}/{one.name}" for one in chunks if one.by_table])
    link(other, [f"{mine}/{one.name}" for one in chunks if one.elsewhere])
    wanted = sorted((one for one in chunks if one.directly or one.by_table), key=lambda one: (one.seconds, one.name))
    assert names_of(mine) == [f"{mine}/{one.name}" for one in wanted]


def test_a_conversation_nobody_recorded_still_has_its_older_chunks(schema: Settings) -> None:
    """Older chunks name a conversation that has no row."""
    insert_legacy("old", {"b": 1, "a": 2})
    assert ask(lambda store: store.get("old")) is None
    assert names_of("old") == ["b", "a"]
    assert names_of("other") == []


def test_what_is_created_is_found_again(database: Settings) -> None:
    """With its audio and its transcript, and nothing made of it yet."""
    chunks = [chunk("a", 2), chunk("b", 1), Chunk(id="c", started_at=NOON)]
    ask(lambda store: store.create("new", chunks))
    found = ask(lambda store: store.chunks("new"))
    assert [(one.id, one.audio_key, one.transcript) for one in found] == [
        ("c", None, None),
        ("b", "b.ogg", "b"),
        ("a", "a.ogg", "a"),
    ]
    conversation = ask(lambda store: store.get("new"))
    assert conversation == Conversation(id="new", created_at=conversation.created_at if conversation else NOON)


def test_chunks_are_ordered_by_the_instant_whatever_zone_their_time_is_in(database: Settings) -> None:
    """13:00 in a zone five hours ahead is before noon in UTC."""
    ahead = timezone(timedelta(hours=5))
    early = Chunk(id="early", started_at=datetime(2024, 3, 1, 13, tzinfo=ahead))
    ask(lambda store: store.create("zones", [chunk("noon"), early]))
    assert names_of("zones") == ["early", "noon"]


def test_times_come_back_as_the_instants_they_were(database: Settings) -> None:
    """With their zone: what is naive cannot be compared with what is aware."""
    ask(lambda store: store.create("times", [chunk("a")]))
    [found] = ask(lambda store: store.chunks("times"))
    conversation = ask(lambda store: store.get("times"))
    assert found.started_at.tzinfo is not None
    assert found.started_at == NOON
    assert conversation is not None
    assert abs(conversation.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_conversation_is_created_once(database: Settings) -> None:
    """The second time changes nothing and says which id is taken."""
    ask(lambda store: store.create("twice", [chunk("a")]))
    with pytest.raises(ConfigurationError, match="'twice'.*choose another id"):
        ask(lambda store: store.create("twice", [chunk("b")]))
    assert names_of("twice") == ["a"]


def test_a_conversation_with_a_chunk_that_exists_is_not_created_at_all(database: Settings) -> None:
    """Neither the conversation nor its other chunks are left behind."""
    ask(lambda store: store.create("first", [chunk("a")]))
    with pytest.raises(ConfigurationError, match="'second'"):
        ask(lambda store: store.create("second", [chunk("b"), chunk("a")]))
    assert ask(lambda store: store.get("second")) is None
    ask(lambda store: store.create("third", [chunk("b")]))
    assert names_of("third") == ["b"]


def test_merged_audio_and_summary_are_kept_side_by_side(database: Settings) -> None:
    """Saving one leaves the other, and saving again replaces."""
    ask(lambda store: store.create("c", []))
    ask(lambda store: store.save_merged("c", "merged/1.mp3"))
    ask(lambda store: store.save_summary("c", "first", "digest-1"))
    ask(lambda store: store.save_merged("c", "merged/2.mp3"))
    ask(lambda store: store.save_summary("c", "second", "digest-2"))
    found = ask(lambda store: store.get("c"))
    assert found is not None
    assert (found.merged_key, found.summary, found.summary_digest) == ("merged/2.mp3", "second", "digest-2")


def test_saving_for_a_conversation_nobody_recorded_records_it(schema: Settings) -> None:
    """Its older chunks stay linked."""
    insert_legacy("old", {"a": 0})
    ask(lambda store: store.save_merged("old", "merged/1.mp3"))
    found = ask(lambda store: store.get("old"))
    assert found is not None
    assert (found.merged_key, found.summary) == ("merged/1.mp3", None)
    assert names_of("old") == ["a"]


def test_a_merge_and_a_summary_saved_at_the_same_time_are_both_kept(schema: Settings) -> None:
    """On a conversation nobody recorded, which both want to record."""
    for number in range(10):
        together = threading.Barrier(2)
        name = f"old-{number}"

        def save_merged(name: str = name, together: threading.Barrier = together) -> None:
            together.wait(10)
            ask(lambda store: store.save_merged(name, "key"))

        def save_summary(name: str = name, together: threading.Barrier = together) -> None:
            together.wait(10)
            ask(lambda store: store.save_summary(name, "text", "digest"))

        with ThreadPoolExecutor(2) as threads:
            for saving in (threads.submit(save_merged), threads.submit(save_summary)):
                saving.result()
        found = ask(lambda store, name=name: store.get(name))  # type: ignore[misc]
        assert found is not None
        assert (found.merged_key, found.summary, found.summary_digest) == ("key", "text", "digest")


def test_several_engines_that_make_the_schema_at_once_all_work(tmp_path: Path, settings: Settings) -> None:
    """Each of eight threads opens the same missing database in the same moment, twelve times over."""
    for number in range(12):
        put_in_force(StoreSettings(database_url=sqlite_url(tmp_path / f"{number}" / "shared.db")))
        together = threading.Barrier(8)

        def create(name: str, together: threading.Barrier = together) -> None:
            together.wait(10)
            ask(lambda store: store.create(name, [chunk(f"chunk of {name}")]))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(create, map(str, range(8))))
        assert [names_of(str(name)) for name in range(8)] == [[f"chunk of {name}"] for name in range(8)]


CREATE = """
import sys
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.conversations import conversation_store

async def create():
    print("ready", flush=True)
    sys.stdin.readline()
    await (await conversation_store()).create(sys.argv[2], [])

put_in_force(Settings(data_dir=sys.argv[1]))
run_async_in_new_loop(create)
"""


def test_several_processes_that_make_the_schema_at_once_all_work(settings: Settings) -> None:
    """As the pools of `worker up` do at their first messages."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, settings.data_dir, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert all(ask(lambda store, name=str(number): store.get(name)) for number in range(3))  # type: ignore[misc]


def sqlite_url(file: Path) -> SecretStr:
    return SecretStr(f"sqlite+aiosqlite:///{file}")


def test_the_url_decides_which_database_it_is(tmp_path: Path, settings: Settings) -> None:
    """Its folder is made, and the data directory's database is not touched."""
    file = tmp_path / "else where" / "c.db"
    put_in_force(StoreSettings(database_url=sqlite_url(file)))
    ask(lambda store: store.create("c", [chunk("a")]))
    assert file.is_file()
    assert not (settings.data_dir / "conversations.db").exists()
    put_in_force(StoreSettings())
    assert ask(lambda store: store.get("c")) is None


BAD_URLS = {
    "no URL": "nonsense",
    "no such dialect": "foo://me:hunter2@host/x",
    "driver not installed": "postgresql+nodriver://me:hunter2@host/x",
    "driver not async": "sqlite:///file.db",
    "port no number": "sqlite+aiosqlite://me:hunter2@host:port/x",
    "slash in the password": "foo://me:hun/ter2@host/x",
    "at sign in the password": "foo://me:hun@ter2@host/x",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_a_database_url_that_cannot_be_used_is_one_line_without_the_password(settings: Settings, url: str) -> None:
    """It names the variable and what to write instead."""
    put_in_force(StoreSettings(database_url=SecretStr(url)))
    with pytest.raises(ConfigurationError) as raised:
        ask(lambda store: store.get("c"))
    said = str(raised.value)
    assert said.startswith("WORKER_DATABASE_URL=")
    assert "sqlite+aiosqlite:///" in said
    assert "\n" not in said
    assert not any(secret in said for secret in ("hunter2", "ter2", "hun/"))


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path, settings: Settings) -> None:
    """A file stands where its folder should be."""
    (tmp_path / "file").touch()
    for file in (tmp_path / "file" / "c.db", tmp_path):
        put_in_force(StoreSettings(database_url=sqlite_url(file)))
        with pytest.raises(ConfigurationError) as raised:
            ask(lambda store: store.get("c"))
        assert str(raised.value).startswith(f"WORKER_DATABASE_URL=sqlite+aiosqlite:///{file}")
        assert "\n" not in str(raised.value)


def test_readers_and_writers_of_one_database_do_not_fail_each_other(database: Settings) -> None:
    """Four threads write forty conversations, two read all the while."""
    names = [f"{writer}-{number}" for writer, number in itertools.product(range(4), range(10))]
    ended = threading.Event()

    def read() -> int:
        rounds = 0
        while not ended.is_set():
            ask(lambda store: store.chunks("0-0"))
            rounds += 1
        return rounds

    with ThreadPoolExecutor(6) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            list(threads.map(lambda name: ask(lambda store: store.create(name, [chunk(name)])), names))
        finally:
            ended.set()
        assert all(reader.result() > 0 for reader in readers)
    assert [names_of(name) for name in names] == [[name] for name in names]
