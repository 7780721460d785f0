"""The base of groups of settings: settings that belong together, read once, and put in force for the process.

A group is a class of its own: `Settings` is the framework's, and each room of the built-in application defines its own.
Nothing is read at import: a process reads a group when it first needs it (`Settings.in_force()`), or is given one
(`put_in_force`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.ground.extras import is_installed
from worker.ground.values import show_value
from worker.settings.environment import Written, variable, written


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
        return {name: one.value for name, one in written(self.settings_cls.model_fields).items()}


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

    Raises:
        TypeError: They are no settings.
    """
    if not isinstance(settings, SettingsGroup | None):
        raise TypeError(f"settings={settings!r:.80}: write Settings(…), or None for those of the environment")
    _loaded.clear()
    if settings is None:
        _put.clear()
    else:
        _put[_group_of(type(settings))] = settings


def outlasting(group: SettingsGroup, name: str, outer: SettingsGroup, limit: str) -> Iterator[Doubt]:
    """Yields a doubt if a time is longer than the one around it."""
    if getattr(group, name) > getattr(outer, limit):
        yield Doubt(
            f"{group.as_written(name)} is longer than {outer.as_written(limit)}, which ends it first",
            f"make {variable(name)} shorter",
        )


def origins(settings: SettingsGroup) -> dict[str, str]:
    """The origin of each value: `environment (…)` with the variable's name, `.env`, `default`, or `code`."""
    found = written(type(settings).model_fields)
    return {
        name: found[name].origin if name in found else "code" if name in settings.model_fields_set else "default"
        for name in type(settings).model_fields
    }


def _complaints(group: type[SettingsGroup], error: ValidationError) -> Iterator[str]:
    known = written(group.model_fields)
    for problem in error.errors(include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            yield message
            continue
        name = str(problem["loc"][0])
        found = known.get(name, Written(str(problem["input"]), variable(name), ""))
        value = "***" if "SecretStr" in str(group.model_fields[name].annotation) else found.value
        yield f"{found.variable}={value}: {message[0].lower()}{message[1:]}"


def _group_of(kind: type[SettingsGroup]) -> type[SettingsGroup]:
    """The group that a class is, or extends."""
    return next(one for one in kind.__mro__ if SettingsGroup in one.__bases__)
