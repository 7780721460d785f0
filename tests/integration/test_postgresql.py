"""The built-in application's data in a PostgreSQL that restarts, is away, or does not answer."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.support.postgres import Postgres
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores import database
from worker.stores.conversations import ConversationStore, conversation_store
from worker.stores.database import DatabaseFailed
from worker.stores.settings import StoreSettings


@pytest.fixture
def own(settings: Settings, postgres: Postgres) -> Postgres:
    """The server, with an empty database in force."""
    put_in_force(StoreSettings(database_url=SecretStr(postgres.url(postgres.create()))))
    return postgres


async def use_at_once(store: ConversationStore, number: int) -> None:
    """Five connections work side by side; each finds what it wrote."""

    async def use(name: str) -> None:
        await store.create(name, [])
        await store.save_merged(name, "key")
        found = await store.get(name)
        assert found is not None
        assert found.merged_key == "key"

    await asyncio.gather(*(use(f"{number}-{one}") for one in range(5)))


def test_a_restart_between_two_uses_is_not_noticed(own: Postgres) -> None:
    """A process keeps its connections; those that a restart has cut are replaced before anything is asked."""

    async def question() -> None:
        store = await conversation_store()
        await use_at_once(store, 0)
        own.stop()
        own.start()
        await use_at_once(store, 1)

    run_async_in_new_loop(question)


def test_while_the_server_is_away_each_use_is_one_line_and_afterwards_all_works(own: Postgres) -> None:
    """Nothing is left half written."""

    async def question() -> None:
        store = await conversation_store()
        await use_at_once(store, 0)
        own.stop()
        try:
            for _ in range(3):
                with pytest.raises(DatabaseFailed, match="cannot be read or written: .") as raised:
                    await store.create("new", [])
                assert "\n" not in str(raised.value)
        finally:
            own.start()
        assert await store.get("new") is None
        await use_at_once(store, 1)

    run_async_in_new_loop(question)


@pytest.mark.parametrize("is_open", [True, False], ids=["at a later use", "at the first use"])
def test_a_server_that_does_not_answer_is_given_up_within_a_bound(
    own: Postgres, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """As one line, and the store can be used as before when the server answers again."""
    monkeypatch.setattr(database, "_PATIENCE", timedelta(seconds=1))

    async def question() -> float:
        if is_open:
            await use_at_once(await conversation_store(), 0)
        began = time.monotonic()
        with own.suspended():
            with pytest.raises(DatabaseFailed, match="no answer within 1s") as raised:
                await (await conversation_store()).create("new", [])
            took = time.monotonic() - began
        assert "\n" not in str(raised.value)
        await use_at_once(await conversation_store(), 1)
        return took

    assert run_async_in_new_loop(question) < 10


def test_a_slow_server_is_waited_for(own: Postgres) -> None:
    """It answers after a second."""

    async def question() -> None:
        store = await conversation_store()
        await use_at_once(store, 0)
        with own.suspended():
            asked = asyncio.create_task(store.get("0-0"))
            await asyncio.sleep(1)
            assert not asked.done()
        assert await asked is not None

    run_async_in_new_loop(question)
