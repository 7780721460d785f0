"""The URL of the server: what it may say, and what is told of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.broker import create_broker
from worker.errors import ConfigurationError
from worker.server.connection import connect
from worker.server.urls import read_url
from worker.settings import Settings
from worker.settings.groups import put_in_force


def test_the_parts_of_a_url_of_sentinels_are_read_as_they_are_written() -> None:
    """Ports may be left out, hosts may be addresses of IPv6, and what is escaped is meant."""
    read = read_url("rediss+sentinel://us%40er:p%2Fw@[::1]:1,b/my%20master?ssl_cert_reqs=none&sentinel_username=s")
    assert read.sentinels is not None
    assert [str(one) for one in read.sentinels.places] == ["[::1]:1", "b:26379"]
    assert (read.scheme, read.sentinels.name, read.sentinels.user) == ("rediss", "my master", {"username": "s"})
    assert read.plain == "rediss://us%40er:p%2Fw@[::1]:1/?ssl_cert_reqs=none"


@pytest.mark.parametrize("path", ["", "/", "/0", "?db=0"])
def test_the_parts_of_a_url_of_a_cluster_are_read_as_they_are_written(path: str) -> None:
    """It has database 0, which may be named."""
    read = read_url(f"redis+cluster://me:pw@a,b:7000{path}")
    assert [str(one) for one in read.nodes] == ["a:6379", "b:7000"]
    assert read.plain.startswith("redis://me:pw@a:6379/")
    assert (read.scheme, read.sentinels) == ("redis", None)


@pytest.mark.parametrize("url", ["redis://a:1/2", "rediss://me:pw@a", "unix:///run/valkey.sock"])
def test_a_url_of_one_server_is_left_to_redis_py(url: str) -> None:
    """As it is."""
    read = read_url(url)
    assert (read.plain, read.sentinels, read.nodes) == (url, None, ())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://a:26379,b:26379", "name the primary as the sentinels do"),
        ("redis+sentinel://a:26379/mymaster/1", r"a database is \?db=1"),
        ("redis+sentinel:///mymaster", "is not an address"),
        ("redis+sentinel://a:x/mymaster", "is not an address"),
        ("redis+other://a:1/mymaster", "is not an address"),
        ("unix+sentinel://a:1/mymaster", "is not an address"),
        ("redis+sentinel://a:1/mymaster?nonsense=1", r"\(nonsense\) is unknown"),
        ("redis+sentinel://a:1/mymaster?retry=1", "its parameter retry cannot be set"),
        ("redis://a:1/0?sentinel_password=x", r"\(sentinel_password\) is unknown"),
        ("redis+cluster://a:1/0?sentinel_password=x", r"\(sentinel_password\) is unknown"),
        ("redis+cluster://a:1/1", "a cluster has database 0 only"),
        ("redis+cluster://a:1?db=1", "a cluster has database 0 only"),
        ("redis+cluster://a:1/staging", "staging is not the number of a database"),
        ("redis+cluster://a:1,,b:1", "is not an address"),
        ("unix+cluster://a:1", "is not an address"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_line(tmp_path: Path, url: str, said: str) -> None:
    """With the URL, its passwords masked, and what to write."""
    with pytest.raises(ConfigurationError, match=said) as told:
        connect(Settings.model_validate({"data_dir": tmp_path, "redis_url": url}))
    assert str(told.value).startswith("WORKER_REDIS_URL=")
    assert "\n" not in str(told.value)


def test_dramatiqs_own_broker_cannot_use_a_cluster(tmp_path: Path) -> None:
    """Its keys would be spread."""
    own = {"data_dir": tmp_path, "redis_url": "redis+cluster://a:1", "broker": "redis-lists"}
    try:
        with pytest.raises(ConfigurationError, match="WORKER_BROKER=redis-lists cannot use a cluster.*: unset it"):
            create_broker(Settings.model_validate(own))
    finally:
        put_in_force(None)
