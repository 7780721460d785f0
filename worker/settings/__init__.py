"""The settings: read once, from `WORKER_…` variables and the project's `.env`, and nowhere else.

Here is the framework's own group; `groups` has the base of all groups, and `environment` reads the variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from worker.ground.durations import format_duration
from worker.ground.project import project_root
from worker.ground.values import ANY_CASE, SIZE, Duration, Folder, PlainName, PoolSize, SizeLimit, Token, Words
from worker.settings.environment import AlsoReadFrom
from worker.settings.groups import Doubt, SettingsGroup

_LONGEST_SHUTDOWN = timedelta(minutes=10)
"""The time that Dramatiq gives its workers to end, unless its command says otherwise."""


class Settings(SettingsGroup):
    """The framework's settings, which every program with actors uses.

    Each is read from `WORKER_<NAME>` in the environment, or in the project's `.env`, unless it is given. Durations are
    written `500ms`, `10s`, `5m`, `1h`, `7d`, or as a number of seconds; sizes `60MB`, `512MiB`, or as a number of
    bytes. `Settings.load()` turns a bad value into a line a person can act on.
    """

    redis_url: SecretStr | None = Field(
        None, description="URL of the Redis or Valkey server. Unset: an embedded server."
    )
    embedded: Annotated[Literal["auto", "never"], ANY_CASE] = Field(
        "auto", description="Embedded server. `auto`: started when no URL is set. `never`: a URL is required."
    )
    namespace: PlainName = Field(
        "worker", description="Beginning of every key. Environments that share a server need one each."
    )
    server_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        timedelta(seconds=5),
        description="Time that a call to the server may take as a whole, with connecting and repeated tries.",
    )
    data_dir: Folder = Field(
        default_factory=lambda: project_root() / ".worker",
        description="Folder for local data. A relative path starts at the project's folder.",
    )
    runtime_dir: Annotated[Path | None, AlsoReadFrom("XDG_RUNTIME_DIR")] = Field(
        None, description="Folder for the socket of the embedded server."
    )
    broker: Annotated[Literal["streams", "redis-lists"], ANY_CASE] = Field(
        "streams", description="`redis-lists`: Dramatiq's own Redis broker, which can lose messages."
    )
    lease: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        timedelta(seconds=10),
        description="Silence after which a worker counts as dead, and its messages run elsewhere.",
    )
    grace: Duration = Field(timedelta(seconds=20), description="Time that running attempts get to end after SIGTERM.")
    max_crashes: int = Field(
        2, ge=1, le=100, description="Number of workers that a message takes down before it becomes a dead letter."
    )
    unknown_actor: Duration = Field(
        timedelta(minutes=10),
        description="Time for which a message waits for a worker that knows its actor and takes its arguments.",
    )
    max_message_bytes: Annotated[int, SIZE] = Field(
        256 * 1024, ge=1024, description="Size limit of a message, in bytes."
    )
    seen: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        timedelta(days=7),
        description="Time for which an id is remembered that was sent only if it was never seen.",
    )
    actors: Words = Field(
        ("worker.tasks",),
        description="Modules with actors, for commands and the web, separated by commas.",
    )
    concurrency: int = Field(
        100, ge=1, le=100_000, description="Number of attempts of async actors that a process runs at once."
    )
    loop: Annotated[Literal["auto", "asyncio", "uvloop"], ANY_CASE] = Field(
        "auto", description="Kind of the shared loop. `auto`: uvloop where it is installed (extra `uvloop`)."
    )
    thread_pool_size: Annotated[PoolSize, AlsoReadFrom("THREAD_POOL_SIZE")] = Field(
        64, description="Number of threads for blocking calls, 1 to 1024."
    )
    cleanup_timeout: Duration = Field(
        timedelta(seconds=5), description="Time that a cancelled coroutine gets to clean up."
    )
    blocking: Annotated[Literal["off", "watch", "error"], ANY_CASE] = Field(
        "watch",
        description="Calls that block an event loop. `watch`: the history tells them. `error`: they raise, too.",
    )
    blocking_threshold: Duration = Field(
        timedelta(milliseconds=100), description="Time for which a loop may be blocked before the history tells it."
    )
    log_format: Annotated[Literal["auto", "console", "json"], ANY_CASE] = Field(
        "auto", description="Format of the log. `auto`: `console` on a terminal, `json` elsewhere."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], ANY_CASE] = Field(
        "info", description="Lowest level that is logged."
    )
    max_retries: int = Field(10, ge=0, le=1000, description="Number of retries of a message that fails.")
    min_backoff: Duration = Field(
        timedelta(seconds=5), description="Shortest delay before the first retry. It doubles each time, with jitter."
    )
    max_backoff: Duration = Field(timedelta(hours=1), description="Longest delay before a retry.")
    time_limit: Duration = Field(timedelta(minutes=10), description="Time limit of an attempt.")
    history_retention: Duration = Field(
        timedelta(days=7), description="Time for which ended messages are kept, dead letters excepted."
    )
    dead_retention: Duration = Field(timedelta(days=30), description="Time for which dead letters are kept.")
    history_limit: int = Field(
        1_000_000, ge=0, description="Number of ended messages that are kept of each state, such as completed."
    )
    history_bytes: SizeLimit = Field(
        None,
        description="Bytes that ended messages may take, dead letters excepted. Beyond that the oldest lose their "
        "arguments, and then go. Unset: no limit.",
    )
    dead_bytes: SizeLimit = Field(
        None,
        description="Bytes that dead letters may take. Beyond that the oldest go, after a warning. Unset: no limit.",
    )
    web_host: str = Field(
        "127.0.0.1",
        description="Address at which `worker web` listens. One that others reach requires WORKER_WEB_TOKEN.",
    )
    web_port: int = Field(8020, ge=0, le=65_535, description="Port of `worker web`. 0: any free port.")
    web_token: Token = Field(
        None,
        description="Token that allows reading and acting (at least 16 characters). Unset: local requests only.",
    )
    web_read_token: Token = Field(None, description="Token that allows only reading (at least 16 characters).")
    web_show_arguments: bool = Field(False, description="Whether the web shows arguments of messages, and tracebacks.")
    web_allowed_hosts: Words = Field(
        (),
        description="Host names of the web beside those of this machine, separated by commas. They require a token.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.min_backoff > self.max_backoff:
            raise ValueError("WORKER_MIN_BACKOFF is longer than WORKER_MAX_BACKOFF: make it at most as long")
        if self.web_read_token is not None and self.web_token in (None, self.web_read_token):
            raise ValueError("WORKER_WEB_READ_TOKEN needs WORKER_WEB_TOKEN beside it, with another value")
        return self

    def doubts(self) -> Iterator[Doubt]:
        """Yields settings that contradict each other or have no effect."""
        if self.grace + self.cleanup_timeout > _LONGEST_SHUTDOWN:
            yield Doubt(
                f"{self.as_written('grace')}: Dramatiq kills its workers after {format_duration(_LONGEST_SHUTDOWN)}",
                "give `dramatiq` a longer --worker-shutdown-timeout too, or make WORKER_GRACE shorter",
            )
        if self.dead_retention < self.history_retention:
            yield Doubt(
                f"{self.as_written('dead_retention')} is shorter than {self.as_written('history_retention')}: "
                "dead letters are forgotten before messages that succeeded",
                "make WORKER_DEAD_RETENTION at least as long",
            )
        if self.history_limit == 0:
            yield Doubt(
                "WORKER_HISTORY_LIMIT=0: no ended message is kept, dead letters included", "raise it", is_severe=True
            )
        if self.web_allowed_hosts and self.web_token is None:
            yield Doubt(
                f"{self.as_written('web_allowed_hosts')} has no effect without WORKER_WEB_TOKEN",
                "set a token, or unset it",
            )
        if self.broker == "redis-lists":
            yield Doubt(
                "WORKER_BROKER=redis-lists: Dramatiq's own broker can lose messages",
                "unset it, unless you are about to move",
            )
