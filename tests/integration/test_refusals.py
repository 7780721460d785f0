"""A server that refuses: what it refuses is told with its remedy, wherever it is met, and never as an outage."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from tests.support.scene import HOST, Server
from tests.support.waiting import wait_until
from worker.broker import create_broker
from worker.errors import ServerRefused
from worker.operations.doctor import Severity, examine
from worker.operations.health import HealthState, check_health
from worker.server.connection import check_server, connect
from worker.settings import Settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    made.start()
    yield made
    made.kill()


def lacks_rights(server: Server, _: Path) -> str:
    server.client.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "+ping", "+client")
    return f"redis://poor:secret@{HOST}:{server.port}/0"


def wants_a_password(server: Server, _: Path) -> str:
    server.client.config_set("requirepass", "secret")
    return f"redis://{HOST}:{server.port}/0"


def is_given_a_wrong_one(server: Server, _: Path) -> str:
    return f"redis://poor:wrong@{HOST}:{server.port}/0"


def has_no_such_database(server: Server, _: Path) -> str:
    return f"redis://{HOST}:{server.port}/99"


@pytest.mark.parametrize(
    ("refuses", "says", "remedy"),
    [
        (lacks_rights, "NOPERM", "rights"),
        (wants_a_password, "NOAUTH Authentication required", "user and password into WORKER_REDIS_URL"),
        (is_given_a_wrong_one, "WRONGPASS", "correct the user and the password"),
        (has_no_such_database, "DB index is out of range", "leave the number out of WORKER_REDIS_URL"),
    ],
)
def test_a_client_that_is_refused_hears_why(
    server: Server, settings: Settings, refuses: Callable[[Server, Path], str], says: str, remedy: str
) -> None:
    """In senders, on the command line, of the health and of the doctor: one line, which shows no password."""
    url = refuses(server, settings.data_dir)
    own = Settings.model_validate({"data_dir": settings.data_dir, "redis_url": url})
    client, broker = connect(own), create_broker(own)
    told = []
    for act in (lambda: check_server(client, own), lambda: broker.enqueue(message())):
        with pytest.raises(ServerRefused) as caught:
            act()
        told.append(str(caught.value))
    health = check_health(client, own)
    assert health.state is HealthState.DEGRADED
    reach = examine(client, own)[0]
    assert reach.severity is Severity.PROBLEM
    for text in (*told, *health.reasons, f"{reach.found}: {reach.remedy}"):
        assert says in text
        assert remedy in text
        assert "no answer" not in text
        assert "\n" not in text
        assert not re.search("secret|wrong@", text)
    broker.close()


def message() -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name="default", actor_name="one", args=(), kwargs={}, options={})


def test_a_server_whose_disk_is_full_is_told_and_can_still_be_asked(server: Server, settings: Settings) -> None:
    """It refuses even PING; a question needs no disk."""
    own = Settings.model_validate({"data_dir": settings.data_dir, "redis_url": f"redis://{HOST}:{server.port}/0"})
    server.client.config_set("save", "3600 1")
    shutil.rmtree(server.folder)  # where it would write its snapshot
    server.client.bgsave()
    wait_until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] != "ok")
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        server.client.ping()
    client, broker = connect(own), create_broker(own)
    check_server(client, own)
    with pytest.raises(ServerRefused, match="MISCONF.*its disk may be full"):
        broker.enqueue(message())
    health = check_health(client, own)
    assert health.state is HealthState.DEGRADED
    assert "MISCONF" in " ".join(health.reasons)
    assert "its disk may be full" in " ".join(health.reasons)
    broker.close()
