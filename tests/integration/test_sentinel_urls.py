"""Sentinels that tell where the primary is: whom a program asks, as whom, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest

from tests.support.scene import HOST, Server, free_port
from tests.support.sentinels import NAME, Sentinel
from tests.support.silence import silent_server
from worker.broker import create_broker
from worker.errors import ServerRefused, ServerUnreachable
from worker.history.query import aask, ask, state_counts
from worker.server.connection import aconnect, check_server, connect, whereabouts
from worker.settings import Settings
from worker.settings.groups import put_in_force


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def sentinel(tmp_path: Path, primary: Server) -> Iterator[Sentinel]:
    """One that lets in who has its password, or a user of its own."""
    rights = "-@all +sentinel|get-master-addr-by-name +client|setname +client|setinfo"
    made = Sentinel(
        tmp_path, primary.port, "requirepass of-sentinels", f"user asks on >own {rights}", password="of-sentinels"
    )
    made.start()
    yield made
    made.kill()
    put_in_force(None)


def settings(tmp_path: Path, url: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path, "redis_url": url, "server_timeout": "2s"})


def test_sentinels_have_a_user_and_a_password_of_their_own(tmp_path: Path, primary: Server, sentinel: Sentinel) -> None:
    """Sync and async; the server's are before the @, as ever, and a database is a parameter."""
    primary.client.execute_command("ACL", "SETUSER", "program", "on", ">secret", "~*", "+@all")
    base = f"redis+sentinel://program:secret@{HOST}:{sentinel.port}/{NAME}?db=3"
    for own in ("sentinel_password=of-sentinels", "sentinel_username=asks&sentinel_password=own"):
        made = settings(tmp_path, f"{base}&{own}")
        client = connect(made)
        assert ask(client, state_counts()) == {}
        assert client.acl_whoami() == "program"
        assert client.client_info()["db"] == 3
        assert whereabouts(client, made).endswith(f"=*** (primary {HOST}:{primary.port})")
        client.close()

        async def in_a_loop(made: Settings = made) -> None:
            aclient = await aconnect(made)
            assert await aask(aclient, state_counts()) == {}
            await aclient.aclose()

        asyncio.run(in_a_loop())


def test_sentinels_that_refuse_are_told_with_the_remedy(tmp_path: Path, sentinel: Sentinel) -> None:
    """At once, in one line that names the sentinel and the parameters."""
    for own in ("", "?sentinel_password=wrong"):
        made = settings(tmp_path, f"redis+sentinel://{HOST}:{sentinel.port}/{NAME}{own}")
        with pytest.raises(ServerRefused, match=rf"no sentinel .* {HOST}:{sentinel.port}: .*sentinel_password") as told:
            check_server(connect(made), made)
        assert "wrong" not in str(told.value)


def test_a_sentinel_that_is_away_silent_or_knows_nothing_is_passed_over(
    tmp_path: Path, sentinel: Sentinel, primary: Server
) -> None:
    """One that knows the primary is enough; the silent one is asked after the others from then on."""
    stranger = Sentinel(tmp_path, primary.port, "sentinel monitor other 127.0.0.1 1 1")
    stranger.start()
    stranger.ask("REMOVE", NAME)
    try:
        with silent_server() as port:
            places = ",".join(f"{HOST}:{one}" for one in (port, free_port(), stranger.port, sentinel.port))
            made = settings(tmp_path, f"redis+sentinel://{places}/{NAME}?sentinel_password=of-sentinels")
            client = connect(made)
            assert ask(client, state_counts()) == {}
            for _ in range(8):
                client.connection_pool.disconnect()
                assert ask(client, state_counts()) == {}
            client.close()
    finally:
        stranger.kill()


def test_it_is_told_which_sentinels_know_no_primary(tmp_path: Path, sentinel: Sentinel) -> None:
    """Within the bound of the call, with each sentinel and its reason."""
    away = free_port()
    url = f"redis+sentinel://{HOST}:{away},{HOST}:{sentinel.port}/another?sentinel_password=of-sentinels"
    made = settings(tmp_path, url)
    with pytest.raises(ServerUnreachable, match="no sentinel tells where the primary is") as told:
        check_server(connect(made), made)
    assert f"{HOST}:{sentinel.port}: it watches no primary named another" in str(told.value)
    assert f"{HOST}:{away}: Error 111" in str(told.value)


def test_a_primary_without_its_replicas_is_left_when_the_sentinels_name_another(
    tmp_path: Path, sentinel: Sentinel, primary: Server
) -> None:
    """One that was cut off from its replicas refuses to write, and nobody could tell it that it was replaced."""
    (tmp_path / "other").mkdir()
    other = Server(tmp_path / "other")
    other.start()
    made = settings(tmp_path, f"redis+sentinel://{HOST}:{sentinel.port}/{NAME}?sentinel_password=of-sentinels")
    broker = create_broker(made)

    def message() -> dramatiq.Message[object]:
        return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})

    try:
        broker.enqueue(message())
        primary.client.config_set("min-replicas-to-write", "1")
        with pytest.raises(ServerRefused, match="NOREPLICAS.*min-replicas-to-write"):
            broker.enqueue(message())
        sentinel.ask("REMOVE", NAME)
        sentinel.ask("MONITOR", NAME, HOST, str(other.port), "1")
        broker.enqueue(message())
        assert ask(other.connect(timeout=5), state_counts()) == {"queued": 1}
    finally:
        broker.close()
        other.kill()


def test_a_call_ends_within_its_bound_while_nobody_answers(tmp_path: Path) -> None:
    """Silent sentinels cost no more than the time of the call."""
    with silent_server() as one, silent_server() as other:
        made = settings(tmp_path, f"redis+sentinel://{HOST}:{one},{HOST}:{other}/{NAME}")
        began = time.monotonic()
        with pytest.raises(ServerUnreachable, match="no sentinel tells where the primary is"):
            check_server(connect(made), made)
        assert time.monotonic() - began < 30
