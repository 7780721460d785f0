"""The settings: read once, from `WORKER_…` variables and the project's `.env`, and nowhere else.

No other module may look at the environment. Nothing is read at import: a process reads its settings
when it first needs them (`settings_in_force`), or is given them (`put_in_force`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.errors import ConfigurationError
from worker.ground.durations import format_duration, parse_duration
from worker.ground.secrets import mask_url

PREFIX = "WORKER_"
POOL_SIZES = range(1, 1025)
SHORTEST_TOKEN = 16
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]+")

# The standard library's logger: it works before our own logging is set up, which needs the settings.
logger = logging.getLogger(__name__)


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0 seconds")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _plain_name(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError("may only have letters, digits, hyphens, underscores and dots")
    return value


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _clamp_pool_size(value: int) -> int:
    clamped = min(max(value, POOL_SIZES[0]), POOL_SIZES[-1])
    if clamped != value:
        logger.warning(
            "WORKER_THREAD_POOL_SIZE=%d is outside %d..%d: using %d",
            value,
            POOL_SIZES[0],
            POOL_SIZES[-1],
            clamped,
        )
    return clamped


def _hard_to_guess(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value().strip()) < SHORTEST_TOKEN:
        raise ValueError(
            f"must have at least {SHORTEST_TOKEN} characters: make one with "
            '`python -c "import secrets; print(secrets.token_urlsafe())"`'
        )
    return token


Token = Annotated[SecretStr | None, AfterValidator(_hard_to_guess)]
Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]


def project_root() -> Path:
    """The nearest folder, upwards from the working directory, with a `.env` or a `pyproject.toml`.

    Without either it is the working directory.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".env").is_file() or (folder / "pyproject.toml").is_file():
            return folder
    return here


class Settings(BaseSettings):
    """What can be set, each as `WORKER_<NAME>` in the environment or in the project's `.env`; immutable.

    Durations are written `500ms`, `10s`, `5m`, `1h`, `7d`, or as a number of seconds.
    `Settings.load()` turns a bad value into a line a person can act on.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    redis_url: SecretStr | None = Field(None, description="Redis or Valkey; unset: an embedded server")
    embedded: Annotated[Literal["auto", "never"], BeforeValidator(_lower)] = Field(
        "auto", description="never: do not start an embedded server when no URL is set"
    )
    namespace: Annotated[str, AfterValidator(_plain_name)] = Field(
        "worker", description="keeps environments that share a server apart: all keys begin with it"
    )
    data_dir: Path = Field(
        default_factory=lambda: project_root() / ".worker",
        description="where local data are kept, made absolute",
    )
    runtime_dir: Path | None = Field(
        None,
        validation_alias=AliasChoices("WORKER_RUNTIME_DIR", "XDG_RUNTIME_DIR"),
        description="where the embedded server's socket is put",
    )
    database_url: SecretStr = Field(
        default_factory=lambda data: SecretStr(f"sqlite+aiosqlite:///{data.get('data_dir')}/conversations.db"),
        description="conversations (SQLAlchemy's async URL)",
    )
    objects_url: SecretStr = Field(
        default_factory=lambda data: SecretStr((data.get("data_dir", Path.cwd()) / "objects").as_uri()),
        description="audio files: file:///folder or s3://bucket/prefix",
    )
    index_dir: Path = Field(
        default_factory=lambda data: data.get("data_dir", Path.cwd()) / "index",
        description="the search index: a folder of this machine, made absolute",
    )
    broker: Annotated[Literal["streams", "redis-lists"], BeforeValidator(_lower)] = Field(
        "streams", description="redis-lists: Dramatiq's own Redis broker, without our promises"
    )
    lease: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        timedelta(seconds=10), description="a worker not heard of for so long is dead: its messages run elsewhere"
    )
    grace: Duration = Field(timedelta(seconds=20), description="how long attempts may go on after SIGTERM")
    max_crashes: int = Field(
        2, ge=1, le=100, description="how often a message may take its worker down before it is a dead letter"
    )
    max_message_bytes: int = Field(256 * 1024, ge=1024, description="the largest message that can be enqueued")
    actors: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("worker.tasks",),
        description="modules with actors, for `worker up` and `worker enqueue`; comma-separated",
    )
    thread_pool_size: Annotated[int, AfterValidator(_clamp_pool_size)] = Field(
        64,
        validation_alias=AliasChoices("WORKER_THREAD_POOL_SIZE", "THREAD_POOL_SIZE"),
        description="threads for blocking calls, 1..1024",
    )
    cleanup_timeout: Duration = Field(timedelta(seconds=5), description="how long a cancelled coroutine may clean up")
    blocking: Annotated[Literal["off", "watch", "error"], BeforeValidator(_lower)] = Field(
        "watch", description="calls that block a loop: watched and told in the history, or (error) made to raise"
    )
    blocking_threshold: Duration = Field(
        timedelta(milliseconds=100), description="how long a loop may be blocked before it is told"
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="the least that is logged"
    )
    max_retries: int = Field(10, ge=0, le=1000, description="how often a failed message is tried again")
    min_backoff: Duration = Field(
        timedelta(seconds=5), description="the least before the first retry; doubles, with jitter"
    )
    max_backoff: Duration = Field(timedelta(hours=1), description="the longest time between two retries")
    time_limit: Duration = Field(timedelta(minutes=10), description="how long an attempt may take")
    merge_timeout: Duration = Field(timedelta(minutes=9), description="how long merging a conversation may take")
    merge_file_timeout: Duration = Field(timedelta(minutes=1), description="how long one audio file may take")
    summarizer: Annotated[Literal["extractive", "openai"], BeforeValidator(_lower)] = Field(
        "extractive", description="openai: any endpoint with OpenAI's API"
    )
    summarizer_url: str | None = Field(None, description="base URL of the endpoint; unset: OpenAI's own")
    summarizer_model: str | None = Field(None, description="the model to ask; needed with openai")
    summarizer_api_key: SecretStr | None = Field(None, description="the endpoint's key, where it wants one")
    summarizer_timeout: Duration = Field(timedelta(minutes=1), description="how long one request may take")
    summarizer_context_words: int = Field(
        6000, ge=100, description="longer transcripts are split for the model into parts of so many words"
    )
    summary_words: int = Field(150, ge=10, le=10_000, description="the longest summary, in words")
    embedder: Annotated[Literal["wordllama", "openai"], BeforeValidator(_lower)] = Field(
        "wordllama", description="who makes the search index's vectors; openai: any endpoint with its `/embeddings`"
    )
    embedder_url: str | None = Field(None, description="base URL of the endpoint; unset: OpenAI's own")
    embedder_model: str | None = Field(None, description="the model to ask; needed with openai")
    embedder_dimensions: int | None = Field(
        None, ge=1, le=65_536, description="how many numbers its vectors have; needed with openai"
    )
    embedder_api_key: SecretStr | None = Field(None, description="the endpoint's key, where it wants one")
    embedder_timeout: Duration = Field(timedelta(seconds=30), description="how long one request may take")
    reranker_url: str | None = Field(
        None, description="base URL of an endpoint with Cohere's or Jina's `/rerank`; unset: nothing is reranked"
    )
    reranker_model: str | None = Field(None, description="the model to ask, where the endpoint has several")
    reranker_api_key: SecretStr | None = Field(None, description="the endpoint's key, where it wants one")
    reranker_timeout: Duration = Field(
        timedelta(seconds=2), description="how long one request may take; after that the answer goes without"
    )
    sync_batch: int = Field(
        100, ge=1, le=10_000, description="how many files of a repository are embedded and stored at once"
    )
    sync_max_file_bytes: int = Field(
        2**20, ge=1, le=2**27, description="larger files of a repository are left out of the search index"
    )
    recall_timeout: Duration = Field(
        timedelta(seconds=5), description="how long each part of a search may take; the answer goes without a slow one"
    )
    history_retention: Duration = Field(timedelta(days=7), description="how long ended messages are kept")
    dead_retention: Duration = Field(timedelta(days=30), description="how long dead letters are kept")
    history_limit: int = Field(
        1_000_000, ge=0, description="how many ended messages are kept of each state (completed, skipped, …)"
    )
    web_host: str = Field("127.0.0.1", description="where `worker web` listens; elsewhere only with WORKER_WEB_TOKEN")
    web_port: int = Field(8020, ge=0, le=65_535, description="its port; 0: any that is free")
    web_token: Token = Field(
        None,
        description="who shows it may read and act, at least 16 characters; unset: whoever is on this machine",
    )
    web_read_token: Token = Field(None, description="who shows it may read, and not act; at least 16 characters")
    web_show_arguments: bool = Field(False, description="show arguments of messages and tracebacks on the web")
    web_allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="names by which the web is reached, beside those of this machine; comma-separated"
    )

    @model_validator(mode="after")
    def _what_goes_together(self) -> Settings:
        if self.summarizer == "openai" and not self.summarizer_model:
            raise ValueError("WORKER_SUMMARIZER=openai needs WORKER_SUMMARIZER_MODEL, the name of the model to ask")
        if self.embedder == "openai" and not (self.embedder_model and self.embedder_dimensions):
            raise ValueError(
                "WORKER_EMBEDDER=openai needs WORKER_EMBEDDER_MODEL, the name of the model to ask, and "
                "WORKER_EMBEDDER_DIMENSIONS, how many numbers its vectors have"
            )
        if self.min_backoff > self.max_backoff:
            raise ValueError("WORKER_MIN_BACKOFF is longer than WORKER_MAX_BACKOFF: make it at most as long")
        if self.web_read_token is not None and self.web_token in (None, self.web_read_token):
            raise ValueError("WORKER_WEB_READ_TOKEN needs WORKER_WEB_TOKEN beside it, and another value than it has")
        return self

    @model_validator(mode="before")
    @classmethod
    def _absolute_folders(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Relative to the project, not to the folder a program happens to start in: both share the data.
        for name in ("data_dir", "index_dir"):
            if values.get(name):
                values[name] = (project_root() / Path(values[name]).expanduser()).resolve()
        return values

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic-settings' hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return (
            init_settings,
            env_settings,
            DotEnvSettingsSource(settings_cls, env_file=project_root() / ".env"),
        )

    @classmethod
    def load(cls) -> Settings:
        """Reads the settings from the environment and the project's `.env`.

        Raises:
            ConfigurationError: A value is bad: one line for each, with name, value and what is allowed.
        """
        try:
            return cls()
        except ValidationError as error:
            raise ConfigurationError("\n".join(_complaints(error))) from None


_in_force: Settings | None = None


def settings_in_force() -> Settings:
    """The settings of this process: those that were put in force, else read now, once."""
    global _in_force
    if _in_force is None:
        _in_force = Settings.load()
    return _in_force


def put_in_force(settings: Settings | None) -> None:
    """Makes these the settings of this process; `None` has them read again at the next use."""
    global _in_force
    _in_force = settings


def variable(field: str) -> str:
    """The environment variable by which a field is set."""
    return f"{PREFIX}{field.upper()}"


def origins(settings: Settings) -> dict[str, str]:
    """Where each value came from: the variable's name, `.env`, `default`, or `code`."""
    env = _variables_set(EnvSettingsSource(type(settings)))
    dotenv = _variables_set(DotEnvSettingsSource(type(settings), env_file=project_root() / ".env"))
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        if name in env:
            found[name] = f"environment ({env[name]})"
        elif name in dotenv:
            found[name] = ".env"
        else:
            found[name] = "code" if name in settings.model_fields_set else "default"
    return found


def unknown_variables() -> list[str]:
    """`WORKER_…` variables in the environment that name no setting: most likely misspelt."""
    known = {variable(name) for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def _variables_set(source: EnvSettingsSource) -> dict[str, str]:
    """The fields that a source sets, with the variable that sets each."""
    present = {name.lower(): name for name, value in source.env_vars.items() if value}
    found = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [variable(name)]
        for candidate in names:
            if isinstance(candidate, str) and candidate.lower() in present:
                found[name] = candidate
                break
    return found


def _complaints(error: ValidationError) -> Iterator[str]:
    sources = [DotEnvSettingsSource(Settings, env_file=project_root() / ".env"), EnvSettingsSource(Settings)]
    set_by = {field: name for source in sources for field, name in _variables_set(source).items()}
    written = {name: value for source in sources for name, value in source.env_vars.items()}
    for problem in error.errors(include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            yield message
            continue
        name = str(problem["loc"][0]).removeprefix(PREFIX).lower()
        secret = "SecretStr" in str(Settings.model_fields[name].annotation)
        source = set_by.get(name, variable(name))
        shown = "***" if secret else written.get(source.lower(), problem["input"])
        yield f"{source}={shown}: {message[0].lower()}{message[1:]}"


def show_value(value: object) -> str:
    """A setting's value as a person writes it, secrets masked."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return mask_url(secret) if "://" in secret else "***"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
