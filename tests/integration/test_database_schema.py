"""The database's schema: made and upgraded once, whoever comes first, in a real PostgreSQL and in SQLite."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.postgres import Postgres
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores import conversations, repositories, schema
from worker.stores.conversations import conversation_store
from worker.stores.database import DatabaseFailed, upgrade_database
from worker.stores.repositories import repository_store
from worker.stores.settings import StoreSettings

TABLES = MetaData()
for one in (conversations._schema, repositories._schema):
    for table in one.sorted_tables:
        table.to_metadata(TABLES)

PROGRAM = """
import sys
from worker.bridge import run_async_in_new_loop
from worker.settings.groups import put_in_force
from worker.stores.conversations import conversation_store
from worker.stores.repositories import repository_store
from worker.stores.settings import StoreSettings

async def use():
    await (await conversation_store()).create(sys.argv[2], [])
    await (await repository_store()).all()

put_in_force(StoreSettings(database_url=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
run_async_in_new_loop(use)
"""


@pytest.fixture(params=["postgresql", "sqlite"])
def empty(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> str:
    """The URL of an empty database, which is in force."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/c.db"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.url(server.create())
    use(url)
    return url


def use(url: str) -> None:
    put_in_force(StoreSettings(database_url=SecretStr(url)))


def on(url: str, question: Callable[[Connection], object]) -> object:
    """What a question finds on a connection of its own."""

    async def asked() -> object:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(question)
        finally:
            await engine.dispose()

    return run_async_in_new_loop(asked)


async def create(name: str) -> None:
    await (await conversation_store()).create(name, [])


async def names() -> list[str]:
    return [one.name for one in await (await repository_store()).all()]


def test_several_programs_that_first_use_an_empty_database_all_work(empty: str) -> None:
    """Five processes, let go at once: none fails, each stores its own, and the schema is there once."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, empty, f"c{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(5)
    ]  # fmt: skip
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    ends = [program.communicate(timeout=120) for program in programs]
    assert [(program.returncode, error) for program, (_, error) in zip(programs, ends, strict=True)] == [(0, "")] * 5
    found = on(empty, lambda connection: connection.execute(text("SELECT id FROM conversations")).scalars().all())
    assert sorted(found) == [f"c{number}" for number in range(5)]  # type: ignore[call-overload]
    assert on(empty, schema.version_of) == schema.VERSION


def test_a_database_from_before_there_were_versions_is_adopted(empty: str) -> None:
    """With all of its rows, and what it lacked."""

    def as_before(connection: Connection) -> None:
        conversations._schema.create_all(connection)
        connection.execute(text("INSERT INTO conversations (id, created_at) VALUES ('old', '2024-03-01 12:00:00')"))

    on(empty, as_before)
    found = run_async_in_new_loop(upgrade_database)
    assert (found.before, found.now) == (None, schema.VERSION)

    async def old() -> object:
        return await (await conversation_store()).get("old")

    assert run_async_in_new_loop(old) is not None
    assert run_async_in_new_loop(names) == []
    assert run_async_in_new_loop(upgrade_database).before == schema.VERSION


def test_the_revisions_make_the_tables_that_the_stores_use(empty: str) -> None:
    """Column by column; and the newest revision is the one that the program needs."""
    run_async_in_new_loop(upgrade_database)

    def differences(connection: Connection) -> object:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": not empty.startswith("sqlite")}
        return compare_metadata(MigrationContext.configure(connection, opts=options), TABLES)

    assert on(empty, differences) == []
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.VERSION]


def test_a_database_of_a_later_version_is_refused_in_a_line(empty: str) -> None:
    """And stays as it is."""
    run_async_in_new_loop(upgrade_database)
    later = f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"
    on(empty, lambda connection: connection.execute(text(later)) and None)
    with pytest.raises(ConfigurationError, match="9999") as raised:
        run_async_in_new_loop(create("c"))
    assert "\n" not in str(raised.value)
    assert on(empty, schema.version_of) == "9999"


def test_an_upgrade_that_fails_changes_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a table nor a version is left of it, and the next one works."""
    on(empty, lambda connection: connection.execute(text("CREATE TABLE chunk_conversations (x INTEGER)")) and None)
    with pytest.raises((ConfigurationError, DatabaseFailed), match="conversation_id"):
        run_async_in_new_loop(create("c"))
    assert on(empty, schema.version_of) is None
    on(empty, lambda connection: connection.execute(text("DROP TABLE chunk_conversations")) and None)
    with pytest.raises(Exception, match="conversations"):
        on(empty, lambda connection: connection.execute(text("SELECT 1 FROM conversations")) and None)
    run_async_in_new_loop(create("c"))


def test_who_may_not_make_tables_works_with_a_database_that_another_has_upgraded(
    postgres: Postgres, settings: Settings
) -> None:
    """Before that, the user gets one line; afterwards all works."""
    name = postgres.create()
    url = postgres.url(name)
    postgres.sql(name, f"CREATE USER user_of_{name}")
    plain = url.replace("postgres@", f"user_of_{name}@")
    use(plain)
    with pytest.raises(DatabaseFailed, match="permission denied") as raised:
        run_async_in_new_loop(create("c"))
    assert "\n" not in str(raised.value)
    use(url)
    run_async_in_new_loop(upgrade_database)
    postgres.sql(name, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO user_of_{name}")
    use(plain)
    run_async_in_new_loop(create("c"))
    assert run_async_in_new_loop(names) == []


def test_the_command_upgrades_and_says_from_where_to_where(empty: str) -> None:
    """Once; after that there is nothing to do. In a line, and as JSON."""
    first, second = (
        subprocess.run(
            [sys.executable, "-m", "worker", "database", "upgrade", *options],
            env={"WORKER_DATABASE_URL": empty, "PATH": ""}, capture_output=True, text=True, check=True,
        ).stdout
        for options in ((), ("--json",))
    )  # fmt: skip
    assert first == f"{empty}: the schema is {schema.VERSION} now; there was none\n"
    assert f'"before": "{schema.VERSION}"' in second


def test_a_database_that_is_away_or_fails_is_one_line(settings: Settings, tmp_path: Path) -> None:
    """At the first use and later, without its password."""
    use("postgresql+asyncpg://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(DatabaseFailed, match=r"me:\*\*\*@127.0.0.1:1/db cannot be read or written: .") as away:
        run_async_in_new_loop(create("c"))
    use(f"sqlite+aiosqlite:///{tmp_path}/c.db")

    async def fail() -> None:
        store = await conversation_store()
        with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
            connection.execute("DROP TABLE conversations")
        await store.get("c")

    with pytest.raises(DatabaseFailed, match="no such table") as failed:
        run_async_in_new_loop(fail)
    assert "\n" not in str(away.value) + str(failed.value)
