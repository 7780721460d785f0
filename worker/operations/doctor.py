"""Checks the server and the settings for problems; each check has a finding, and a remedy if there is a problem.

It changes nothing, on the server or elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import redis

from worker.errors import ServerUnreachable
from worker.history.answers import HistorySize
from worker.history.overview import history_size
from worker.history.query import ask
from worker.operations.actors import HIDES, RENAME, namesake
from worker.operations.health import HealthState, check_health, unreachable
from worker.server.client import RedisClient
from worker.server.cluster import NodeOfSlot
from worker.server.connection import whereabouts
from worker.server.fitness import Info, cluster_trouble, eviction_doubt, eviction_trouble
from worker.server.layout import LAYOUT, read_layout, remedy
from worker.server.primary import Primary
from worker.settings import Settings
from worker.settings.groups import SettingsGroup
from worker.settings.unread import variables_without_effect

OLDEST_SERVER = 7
SLOW_MS = 20.0
CLOCK_SKEW = 1.0
FULL = 0.9


class Severity(StrEnum):
    """The severity of a finding: a warning costs safety or insight, a problem costs messages or work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of a check.

    Attributes:
        name: The name of the check.
        severity: The severity of the finding.
        found: The finding, as a text for people.
        remedy: The remedy; empty if none is needed.
    """

    name: str
    severity: Severity
    found: str
    remedy: str = ""


def examine(client: RedisClient, settings: Settings, groups: Sequence[type[SettingsGroup]] = ()) -> tuple[Finding, ...]:
    """Checks everything; if the server does not answer, only the settings.

    Args:
        client: A client of the server.
        settings: The settings of that server.
        groups: The groups of settings beside the framework's; those in use are in force.
    """
    found = [*_check_server(client, settings)]
    if found[0].severity is not Severity.PROBLEM:
        found += _check_work(client, settings)
    return (*found, *check_folder(Path.cwd()), *check_settings(settings, groups))


def _ok(name: str, found: str) -> Finding:
    return Finding(name, Severity.OK, found)


def _warning(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, Severity.WARNING, found, remedy)


def _problem(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, Severity.PROBLEM, found, remedy)


# ---------------------------------------------------------------------- the server


def _check_server(client: RedisClient, settings: Settings) -> Iterator[Finding]:
    try:
        layout = read_layout(client)
        began = time.monotonic()
        client.exists(client.namespace.layout)
        took_ms = (time.monotonic() - began) * 1000
        asked_at = time.time()
        seconds, microseconds = client.time()
        here = (asked_at + time.time()) / 2
        info: Info = client.info()
    except (ServerUnreachable, redis.RedisError, OSError) as error:
        complaint = unreachable(error, settings)
        yield _problem("reach", complaint.found, complaint.remedy)
        return
    yield check_reach(took_ms, whereabouts(client, settings))
    yield check_version(info)
    yield check_cluster(info, client.primary)
    yield check_role(info)
    yield check_persistence(info, _save_points(client))
    yield check_eviction(info)
    yield check_clock(seconds + microseconds / 1_000_000 - here)
    yield check_layout(layout)


def _save_points(client: RedisClient) -> str | None:
    """The server's setting `save` for snapshots, or None if it does not show its settings."""
    try:
        found: Any = client.config_get("save")
    except redis.RedisError:
        return None  # hosted servers may refuse to show them
    return str(found.get("save", ""))


def check_reach(took_ms: float, where: str) -> Finding:
    """Checks whether the server answers quickly, because an attempt needs some answers."""
    found = f"{where} answers in {took_ms:.1f} ms"
    if took_ms > SLOW_MS:
        return _warning("reach", found, "run the workers near the server: each attempt waits for some answers")
    return _ok("reach", found)


def check_version(info: Info) -> Finding:
    """Checks whether the server is new enough for the scripts."""
    version = str(info.get("redis_version", "0"))
    name = "Valkey" if "valkey_version" in info else "Redis"
    found = f"{name} {info.get('valkey_version', version)}"
    if int(version.partition(".")[0] or 0) < OLDEST_SERVER:
        return _problem("version", found, f"upgrade it: Redis {OLDEST_SERVER} or newer, or Valkey, is needed")
    return _ok("version", found)


def check_cluster(info: Info, primary: Primary | None = None) -> Finding:
    """Checks that a server that is a cluster's was looked for as such; `primary` is what was looked for."""
    if isinstance(primary, NodeOfSlot):
        return _ok("cluster", f"the namespace has slot {primary.slot}, which this node has")
    if trouble := cluster_trouble(info, expected=False):
        return _problem("cluster", *trouble)
    return _ok("cluster", "no cluster")


def check_role(info: Info) -> Finding:
    """Checks that the server is the primary."""
    if info.get("role") == "slave":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        return _problem(
            "role", f"a replica of {primary}", "point WORKER_REDIS_URL at the primary: replicas refuse writes"
        )
    return _ok("role", "primary")


def check_persistence(info: Info, save_points: str | None) -> Finding:
    """Checks whether messages outlive the server's process.

    Args:
        info: The server's INFO.
        save_points: The server's setting `save`, or None if it is not known.
    """
    failed = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name, "ok") != "ok"]
    if failed:
        return _problem(
            "persistence", f"{failed[0]} is {info[failed[0]]}", "see the server's log: its disk may be full"
        )
    if info.get("aof_enabled"):
        return _ok("persistence", "append-only file")
    remedy = "set `appendonly yes`: what was enqueued since the last snapshot is lost when the server ends"
    if save_points:
        return _warning("persistence", f"snapshots only ({save_points})", remedy)
    if save_points is None:
        return _warning("persistence", "no append-only file; whether there are snapshots is not told", remedy)
    return _problem("persistence", "none", "set `appendonly yes`: every message is lost when the server ends")


def check_eviction(info: Info) -> Finding:
    """Checks whether the server may drop messages when its memory is full, and how full it is."""
    policy = str(info.get("maxmemory_policy", "?"))
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    room = f"{most / 2**20:.0f} MiB" if most else "unlimited memory"
    found = f"{policy}, {used / 2**20:.0f} MiB used of {room}"
    if trouble := eviction_trouble(info):
        return _problem("eviction", found, f"{trouble[1]}: messages are data, and would be dropped")
    if doubt := eviction_doubt(info):
        return _warning("eviction", found, f"{doubt[1]}: {doubt[0]}")
    if policy != "noeviction":
        return _warning("eviction", found, "set `maxmemory-policy noeviction`, before it gets a `maxmemory`")
    if most and used > FULL * most:
        return _warning("eviction", found, "give it more memory, or set WORKER_HISTORY_BYTES, or lower it")
    return _ok("eviction", found)


def check_clock(ahead: float) -> Finding:
    """Checks the difference between the server's clock and this machine's; the server is `ahead` seconds ahead."""
    found = f"the server's is {abs(ahead) * 1000:.0f} ms {'ahead' if ahead >= 0 else 'behind'}"
    if abs(ahead) > CLOCK_SKEW:
        remedy = "set both by NTP: delays and leases are right anyway, times in the history are not"
        return _warning("clock", found, remedy)
    return _ok("clock", found)


def check_layout(version: int) -> Finding:
    """Checks whether this version can read the server's data."""
    if advice := remedy(version):
        return _problem("layout", f"the data have layout {version}, this version reads {LAYOUT}", advice)
    return _ok("layout", f"version {version}")


def check_history(found: HistorySize) -> Finding:
    """Checks whether dead letters near their bound, because the oldest would go."""
    if found.dead_letters_will_go:
        return _warning(
            "history", str(found), "replay dead letters, purge them, or raise WORKER_DEAD_BYTES: the oldest go"
        )
    return _ok("history", str(found))


def _check_work(client: RedisClient, settings: Settings) -> Iterator[Finding]:
    yield check_history(ask(client, history_size(settings)))
    health = check_health(client, settings)
    if health.state is HealthState.HEALTHY:
        yield _ok("work", f"workers alive: {health.workers}; the bridge works")
    for one in health.complaints:
        yield _problem("work", one.found, one.remedy)


def check_folder(folder: Path) -> Iterator[Finding]:
    """Checks that programs that start in this folder find the package, and no file of the same name."""
    if (hides := namesake(folder)) is not None:
        yield _problem("folder", f"{hides} {HIDES}", RENAME)


# ---------------------------------------------------------------------- the settings


def check_settings(settings: Settings, groups: Sequence[type[SettingsGroup]]) -> tuple[Finding, ...]:
    """Looks for settings that contradict each other or have no effect, and for variables that nothing reads.

    Args:
        settings: The framework's settings.
        groups: The groups of settings beside the framework's; those in use are in force.
    """
    in_force = [settings, *(group.in_force() for group in groups if group.is_in_use())]
    doubts = [doubt for one in in_force for doubt in one.doubts()]
    doubts += variables_without_effect((Settings, *groups))
    found = [(_problem if one.is_severe else _warning)("settings", one.found, one.remedy) for one in doubts]
    return tuple(found) or (_ok("settings", "nothing contradicts"),)
