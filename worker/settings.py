"""The settings: read once, from `WORKER_…` variables and the project's `.env`, and nowhere else.

Settings that belong together are a group, a class of its own: `Settings` is the framework's, and each room of the
built-in application defines its own. No other module may look at the environment. Nothing is read at import: a process
reads a group when it first needs it (`Settings.in_force()`), or is given one (`put_in_force`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.ground.durations import format_duration
from worker.ground.extras import is_installed
from worker.ground.project import project_root
from worker.ground.values import ANY_CASE, Duration, Folder, PlainName, PoolSize, Token, Words, show_value

PREFIX = "WORKER_"

_LONGEST_SHUTDOWN = timedelta(minutes=10)
"""The time that Dramatiq gives its workers to end, unless its command says otherwise."""


@dataclass(frozen=True, slots=True)
class AlsoReadFrom:
    """Marks a setting that has a second variable, which counts where the first is not set."""

    variable: str


class Doubt(NamedTuple):
    """A setting that is allowed, but hardly wanted.

    Attributes:
        found: The setting with its value, and the trouble with it.
        remedy: An instruction.
        is_severe: Whether it costs messages, or their history.
    """

    found: str
    remedy: str
    is_severe: bool = False


class _WrittenSource(PydanticBaseSettingsSource):
    """The values that are written in the environment, or else in the project's `.env`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of a setting, its name, and that it is not to be read as JSON."""
        del field
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The values by the names of their settings."""
        return {name: one.value for name, one in _written(self.settings_cls).items()}


class SettingsGroup(BaseSettings):
    """Settings that are read together, each as `WORKER_<NAME>` in the environment or in the project's `.env`.

    Immutable. Durations are written `500ms`, `10s`, `5m`, `1h`, `7d`, or as a number of seconds.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True)

    extra: ClassVar[str | None] = None
    """The extra without which nothing reads these settings, or None."""

    @classmethod
    def settings_customise_sources(  # noqa: D102 - the library's hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del env_settings, dotenv_settings, file_secret_settings  # they name no variable in a complaint
        return init_settings, _WrittenSource(settings_cls)

    @classmethod
    def load(cls) -> Self:
        """Reads the group from the environment and the project's `.env`.

        Raises:
            ConfigurationError: A value is bad: one line for each, with name, value and what is allowed.
        """
        try:
            return cls()
        except ValidationError as error:
            raise ConfigurationError("\n".join(_complaints(cls, error))) from None

    @classmethod
    def in_force(cls) -> Self:
        """The group's settings in this process: those that were put in force, else read now, once.

        Raises:
            ConfigurationError: A value is bad: one line for each, with name, value and what is allowed.
        """
        group = _group_of(cls)
        for known in (_put, _loaded):
            found = known.get(group)
            if isinstance(found, cls):
                return found
        loaded = _loaded[group] = cls.load()
        return loaded

    @staticmethod
    def read_all() -> None:
        """Reads all groups that are imported and in use, so that a process hears of bad values before its work begins.

        Raises:
            ConfigurationError: Values are bad: one line for each, of all groups.
        """
        complaints: list[str] = []
        for group in SettingsGroup.__subclasses__():
            try:
                if group.is_in_use():
                    group.in_force()
            except ConfigurationError as error:
                complaints += str(error).splitlines()
        if complaints:
            # A group may have read another, and repeat its complaints.
            raise ConfigurationError("\n".join(dict.fromkeys(complaints)))

    @classmethod
    def is_in_use(cls) -> bool:
        """Whether the readers of these settings are installed."""
        return cls.extra is None or is_installed(cls.extra)

    def doubts(self) -> Iterator[Doubt]:
        """Yields settings that contradict each other or have no effect."""
        yield from ()

    def as_written(self, name: str) -> str:
        """A setting with its value, as a person writes it, such as `WORKER_GRACE=20s`; secrets are masked."""
        return f"{variable(name)}={show_value(getattr(self, name))}"


_put: dict[type[SettingsGroup], SettingsGroup] = {}
_loaded: dict[type[SettingsGroup], SettingsGroup] = {}


def put_in_force(settings: SettingsGroup | None) -> None:
    """Makes these the settings of their group in this process; None forgets all groups, to be read again.

    Groups that were read, and not put, are read again at their next use: their defaults may depend on other groups.
    """
    _loaded.clear()
    if settings is None:
        _put.clear()
    else:
        _put[_group_of(type(settings))] = settings


class Settings(SettingsGroup):
    """The framework's settings, which every program with actors uses.

    Each is read from `WORKER_<NAME>` in the environment, or in the project's `.env`, unless it is given. Durations are
    written `500ms`, `10s`, `5m`, `1h`, `7d`, or as a number of seconds. `Settings.load()` turns a bad value into a line
    a person can act on.
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
        2, ge=1, le=100, description="Number of crashed workers after which a message becomes a dead letter."
    )
    unknown_actor: Duration = Field(
        timedelta(minutes=10),
        description="Time for which a message waits for a worker that knows its actor and takes its arguments.",
    )
    max_message_bytes: int = Field(256 * 1024, ge=1024, description="Size limit of a message, in bytes.")
    seen: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        timedelta(days=7),
        description="Time for which an id is remembered that was sent only if it was never seen.",
    )
    actors: Words = Field(
        ("worker.tasks",),
        description="Modules with actors, for commands and the web, separated by commas.",
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


def outlasting(group: SettingsGroup, name: str, outer: SettingsGroup, limit: str) -> Iterator[Doubt]:
    """Yields a doubt if a time is longer than the one around it."""
    if getattr(group, name) > getattr(outer, limit):
        yield Doubt(
            f"{group.as_written(name)} is longer than {outer.as_written(limit)}, which ends it first",
            f"make {variable(name)} shorter",
        )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def origins(settings: SettingsGroup) -> dict[str, str]:
    """The origin of each value: `environment (…)` with the variable's name, `.env`, `default`, or `code`."""
    written = _written(type(settings))
    return {
        name: written[name].origin if name in written else "code" if name in settings.model_fields_set else "default"
        for name in type(settings).model_fields
    }


def variables_without_effect(groups: Iterable[type[SettingsGroup]]) -> Iterator[Doubt]:
    """Yields variables in the environment that nothing reads.

    Each names no setting of these groups, or a setting of a group that is not in use.
    """
    group_of = {variable(name): group for group in groups for name in group.model_fields}
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        group = group_of.get(name.upper())
        if group is None:
            yield Doubt(f"{name} names no setting", "is it misspelt? unset it")
        elif not group.is_in_use():
            yield Doubt(
                f"{name} has no effect without the extra {group.extra!r}",
                f"pip install 'dramatiq-bridge[{group.extra}]', or unset it",
            )


class _Written(NamedTuple):
    """A value as it is written somewhere."""

    value: str
    variable: str
    origin: str


def _written(group: type[BaseSettings]) -> dict[str, _Written]:
    """The settings that are written in the environment, or else in the project's `.env`."""
    found = {}
    for values, origin in ((_dotenv(), ".env"), (os.environ, "environment ({})")):
        present = {name.upper(): value for name, value in values.items() if value}
        for name, field in group.model_fields.items():
            others = [part.variable for part in field.metadata if isinstance(part, AlsoReadFrom)]
            for one in (variable(name), *others):
                if one in present:
                    found[name] = _Written(present[one], one, origin.format(one))
                    break
    return found


def _dotenv() -> dict[str, str | None]:
    file = project_root() / ".env"
    try:
        return dotenv_values(file, encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}; make it a readable text file in UTF-8") from error


def _complaints(group: type[SettingsGroup], error: ValidationError) -> Iterator[str]:
    written = _written(group)
    for problem in error.errors(include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            yield message
            continue
        name = str(problem["loc"][0])
        found = written.get(name, _Written(str(problem["input"]), variable(name), ""))
        value = "***" if "SecretStr" in str(group.model_fields[name].annotation) else found.value
        yield f"{found.variable}={value}: {message[0].lower()}{message[1:]}"


def _group_of(kind: type[SettingsGroup]) -> type[SettingsGroup]:
    """The group that a class is, or extends."""
    return next(one for one in kind.__mro__ if SettingsGroup in one.__bases__)
