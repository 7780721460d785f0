"""The doctor's checks, on what servers and settings say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from worker.cli.config import APPLICATION, GROUPS
from worker.operations.doctor import (
    Finding,
    Severity,
    check_clock,
    check_cluster,
    check_eviction,
    check_layout,
    check_persistence,
    check_reach,
    check_role,
    check_settings,
    check_version,
)
from worker.server.layout import LAYOUT
from worker.settings import Settings
from worker.settings.groups import put_in_force

GOOD: dict[str, Any] = {
    "redis_version": "7.2.4",
    "valkey_version": "8.1.0",
    "cluster_enabled": 0,
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 2**20,
}

MIB = 2**20

OF_SERVERS = {
    "a good server's version": (check_version(GOOD), Severity.OK),
    "an old Redis": (check_version({"redis_version": "6.2.14"}), Severity.PROBLEM),
    "a newer Redis": (check_version({"redis_version": "8.0.1"}), Severity.OK),
    "no version": (check_version({}), Severity.PROBLEM),
    "no cluster": (check_cluster(GOOD), Severity.OK),
    "a cluster": (check_cluster({"cluster_enabled": 1}), Severity.PROBLEM),
    "a primary": (check_role(GOOD), Severity.OK),
    "a replica": (check_role({"role": "slave", "master_host": "a", "master_port": 6379}), Severity.PROBLEM),
    "an append-only file": (check_persistence(GOOD, ""), Severity.OK),
    "snapshots only": (check_persistence({"aof_enabled": 0}, "3600 1"), Severity.WARNING),
    "no persistence": (check_persistence({"aof_enabled": 0}, ""), Severity.PROBLEM),
    "persistence that is not told": (check_persistence({"aof_enabled": 0}, None), Severity.WARNING),
    "a full disk": (check_persistence(GOOD | {"aof_last_write_status": "err"}, ""), Severity.PROBLEM),
    "a failed snapshot": (check_persistence(GOOD | {"rdb_last_bgsave_status": "err"}, ""), Severity.PROBLEM),
    "no eviction": (check_eviction(GOOD), Severity.OK),
    "an eviction that may come": (check_eviction(GOOD | {"maxmemory_policy": "allkeys-lru"}), Severity.WARNING),
    "an eviction of what expires": (
        check_eviction(GOOD | {"maxmemory_policy": "volatile-lru", "maxmemory": 512 * MIB}),
        Severity.WARNING,
    ),
    "an eviction": (
        check_eviction(GOOD | {"maxmemory_policy": "allkeys-lru", "maxmemory": 512 * MIB}),
        Severity.PROBLEM,
    ),
    "a nearly full memory": (
        check_eviction(GOOD | {"maxmemory": 100 * MIB, "used_memory": 95 * MIB}),
        Severity.WARNING,
    ),
    "room in memory": (check_eviction(GOOD | {"maxmemory": 100 * MIB, "used_memory": 50 * MIB}), Severity.OK),
    "clocks that agree": (check_clock(-0.2), Severity.OK),
    "a clock that is behind": (check_clock(30.0), Severity.WARNING),
    "a clock that is ahead": (check_clock(-30.0), Severity.WARNING),
    "a near server": (check_reach(0.3, "redis://host"), Severity.OK),
    "a far server": (check_reach(80.0, "redis://host"), Severity.WARNING),
    "our layout": (check_layout(LAYOUT), Severity.OK),
    "a former layout": (check_layout(LAYOUT - 1), Severity.PROBLEM),
    "a later layout": (check_layout(LAYOUT + 1), Severity.PROBLEM),
}


@pytest.mark.parametrize(("finding", "severity"), OF_SERVERS.values(), ids=OF_SERVERS)
def test_a_server_is_judged_by_what_it_says(finding: Finding, severity: Severity) -> None:
    """What is wrong comes with what to do; what is well does not."""
    assert finding.severity is severity
    assert finding.found
    assert bool(finding.remedy) == (severity is not Severity.OK)


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "WORKER_MERGE_TIMEOUT": {"merge_timeout": timedelta(hours=1)},
    "WORKER_MERGE_FILE_TIMEOUT": {"merge_file_timeout": timedelta(hours=1)},
    "WORKER_SUMMARIZER_TIMEOUT": {"summarizer_timeout": timedelta(hours=1)},
    "WORKER_GRACE": {"grace": timedelta(minutes=11)},
    "WORKER_DEAD_RETENTION": {"dead_retention": timedelta(days=1)},
    "WORKER_HISTORY_LIMIT": {"history_limit": 0},
    "WORKER_BROKER": {"broker": "redis-lists"},
    "WORKER_SUMMARIZER_URL": {"summarizer_url": "http://models.example"},
    "WORKER_SUMMARIZER_API_KEY": {"summarizer_api_key": "hunter2"},
    "WORKER_SUMMARY_WORDS": {"summary_words": 9_000},
}


@pytest.mark.parametrize(("name", "values"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_named(name: str, values: dict[str, Any], settings: Settings) -> None:
    """With what to do, and without secrets."""
    for group in GROUPS:
        put_in_force(group(**{one: value for one, value in values.items() if one in group.model_fields}))
    [finding] = check_settings(Settings.in_force(), APPLICATION)
    assert finding.severity is not Severity.OK
    assert name in finding.found
    assert finding.remedy
    assert "hunter2" not in finding.found


def test_settings_as_they_come_are_well(settings: Settings) -> None:
    """Nothing is said of the defaults but that."""
    [finding] = check_settings(Settings.in_force(), APPLICATION)
    assert finding.severity is Severity.OK


def test_variables_that_name_no_setting_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most likely misspelt."""
    monkeypatch.setenv("WORKER_MAX_RETRYS", "3")
    [finding] = check_settings(Settings.in_force(), APPLICATION)
    assert finding.severity is Severity.WARNING
    assert "WORKER_MAX_RETRYS" in finding.found
