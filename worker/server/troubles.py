"""Troubles with the server, each in one line with its remedy. A refusal is never told as an outage."""

from __future__ import annotations

import redis
from redis import exceptions

from worker.errors import ServerRefused, ServerUnreachable
from worker.server.informants import InformantsRefuseError
from worker.server.wires import NotEnoughReplicasError

AWAY = "check WORKER_REDIS_URL, that the server runs, and that this machine may reach it"

_REMEDIES = {
    "NOPERM": "give its user these rights: docs/reference/rights.md has a line for each kind of program",
    "NOAUTH": "write its user and password into WORKER_REDIS_URL, as in redis://user:password@host:6379/0",
    "WRONGPASS": "correct the user and the password in WORKER_REDIS_URL",
    "MISCONF": "see the server's log: its disk may be full",
    "OOM": "give the server more memory, or lower WORKER_HISTORY_RETENTION and WORKER_HISTORY_LIMIT",
    "READONLY": "it is a replica: point WORKER_REDIS_URL at the primary",
    "MASTERDOWN": "it is a replica without its primary: point WORKER_REDIS_URL at the primary",
    "MOVED": "it belongs to a cluster: write redis+cluster://host:6379 into WORKER_REDIS_URL",
    "CLUSTERDOWN": "its cluster has a shard without a primary: see CLUSTER INFO, and try again",
    "ASK": "the cluster moves the namespace's slot to another node: try again when that is over",
    "TRYAGAIN": "the cluster moves the namespace's slot to another node: try again when that is over",
    "NOREPLICAS": "bring back its replicas, or lower its `min-replicas-to-write`",
    "LOADING": "wait until it has loaded its data",
}
_NO_SUCH_DATABASE = "leave the number out of WORKER_REDIS_URL, and set WORKER_NAMESPACE to keep environments apart"
_OTHERWISE = "see `worker doctor`, and the server's log"

# redis-py leaves the code out of the text of errors for which it has a type.
_CODES: dict[type[Exception], str] = {
    NotEnoughReplicasError: "NOREPLICAS",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.MovedError: "MOVED",  # which redis-py takes for an ASK
    exceptions.AskError: "ASK",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.BusyLoadingError: "LOADING",
}


def is_refusal(error: Exception) -> bool:
    """Whether the server answered, and refused."""
    kinds = (redis.ResponseError, redis.AuthenticationError, redis.BusyLoadingError)
    return isinstance(error, kinds)


def trouble(error: Exception, where: str = "") -> ServerUnreachable:
    """The error to raise for this one of redis-py or of the connection; `where` is the server's address, for people."""
    found, remedy = described(error, where)
    kind = ServerRefused if is_refusal(error) else ServerUnreachable
    return kind(f"{found}: {remedy}")


def described(error: Exception, where: str = "") -> tuple[str, str]:
    """The trouble and its remedy, each for a line of text."""
    reason = " ".join(str(error).split()) or type(error).__name__
    at = f" at {where}" if where else ""
    if not is_refusal(error):
        return f"no answer from Redis{at} ({reason})", AWAY
    if isinstance(error, InformantsRefuseError):
        return f"Redis{at} refuses ({reason})", error.remedy
    code = _code_of(error, reason)
    if code == "NOAUTH":
        reason = "Authentication required"  # not that HELLO is the wrong word, as the server says in a handshake
    said = reason if reason.startswith(code) else f"{code} {reason}"
    remedy = _NO_SUCH_DATABASE if "DB index" in reason else _REMEDIES.get(code, _OTHERWISE)
    return f"Redis{at} refuses ({said})", remedy


def _code_of(error: Exception, reason: str) -> str:
    if isinstance(error, redis.AuthenticationError):
        is_missing = "required" in reason.lower() or "already authenticated" in reason
        return "NOAUTH" if is_missing else "WRONGPASS"
    if "ACL failure" in reason:
        return "NOPERM"  # inside a script
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    first = reason.partition(" ")[0]
    return known or (first if first.isupper() and first.isalpha() else "")
