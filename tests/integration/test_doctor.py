"""The doctor, at a real server."""

from __future__ import annotations

import pytest

from worker.operations.doctor import Finding, Severity, examine
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.settings import Settings


def by_name(found: tuple[Finding, ...]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def test_the_embedded_server_is_well(client: RedisClient, settings: Settings) -> None:
    """All that is missing is a worker, and looking changes nothing."""
    found = by_name(examine(client, settings))
    assert [name for name, one in found.items() if one.severity is not Severity.OK] == ["work"]
    assert "no worker is alive" in found["work"].found
    assert set(found) == {
        *("reach", "version", "cluster", "role", "persistence", "eviction", "clock", "layout"),
        *("history", "work", "settings"),
    }
    assert client.dbsize() == 0


@pytest.mark.own_server
def test_a_server_that_would_lose_messages_is_told_with_the_remedy(client: RedisClient, settings: Settings) -> None:
    """Without persistence, and with a policy that evicts."""
    client.config_set("appendonly", "no")
    client.config_set("maxmemory", "512mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    found = by_name(examine(client, settings))
    for name, remedy in (("persistence", "appendonly yes"), ("eviction", "noeviction")):
        assert found[name].severity is Severity.PROBLEM
        assert remedy in found[name].remedy
    client.config_set("save", "3600 1")
    assert by_name(examine(client, settings))["persistence"].severity is Severity.WARNING


def test_a_later_layout_is_told(client: RedisClient, settings: Settings) -> None:
    """Its workers would refuse to start."""
    client.hset("{worker}:layout", "version", "99")
    assert by_name(examine(client, settings))["layout"].severity is Severity.PROBLEM


def test_a_former_layout_is_told(client: RedisClient, settings: Settings) -> None:
    """Whatever the namespace: it had none."""
    client.set("worker:seq", "7")
    found = by_name(examine(client, settings))["layout"]
    assert found.severity is Severity.PROBLEM
    assert "former version" in found.remedy


def test_a_server_out_of_reach_does_not_hide_the_settings(settings: Settings) -> None:
    """Which can be checked without it."""
    url = "redis://me:hunter2@127.0.0.1:1/0"
    away = Settings(data_dir=settings.data_dir, redis_url=url, history_limit=0)
    found = by_name(examine(connect(away), away))
    assert set(found) == {"reach", "settings"}
    assert {one.severity for one in found.values()} == {Severity.PROBLEM}
    assert "hunter2" not in found["reach"].found
    assert "WORKER_REDIS_URL" in found["reach"].remedy
