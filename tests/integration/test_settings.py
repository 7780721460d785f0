"""Settings from the environment and the project's `.env`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from worker.cli.config import APPLICATION, GROUPS
from worker.errors import ConfigurationError
from worker.ground.project import project_root
from worker.ground.secrets import mask_secrets
from worker.ground.values import show_value
from worker.models.settings import ModelSettings
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.environment import variable, variables_of_ours
from worker.settings.groups import origins, put_in_force
from worker.settings.unread import OF_THE_APPLICATION, variables_without_effect
from worker.stores.settings import StoreSettings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project, no variable of the developer's, and nothing in force."""
    put_in_force(None)
    for name in os.environ:
        if name.startswith("WORKER_") or name in ("THREAD_POOL_SIZE", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name)
    (tmp_path / "pyproject.toml").touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    yield tmp_path
    put_in_force(None)


def test_without_anything_set_the_data_are_beside_the_projects_file(project: Path) -> None:
    """Found upwards from the working directory, so that programs in different folders share them."""
    stores = StoreSettings.load()
    assert project_root() == project
    assert Settings.load().data_dir == project / ".worker"
    assert stores.database_url.get_secret_value() == f"sqlite+aiosqlite:///{project}/.worker/conversations.db"
    assert stores.objects_url.get_secret_value() == f"file://{project}/.worker/objects"
    assert stores.index_dir == project / ".worker" / "index"


def test_the_nearest_env_file_is_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearer than the pyproject.toml above it."""
    (project / "a" / ".env").write_text("WORKER_MAX_RETRIES=3\n")
    assert Settings.load().data_dir == project / "a" / ".worker"
    assert Settings.load().max_retries == 3


def test_the_environment_wins_over_the_env_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each value knows where it came from."""
    (project / ".env").write_text("WORKER_MAX_RETRIES=3\nWORKER_MIN_BACKOFF=2s\nOTHER=1\n")
    monkeypatch.setenv("WORKER_MAX_RETRIES", "4")
    settings = Settings.load()
    assert (settings.max_retries, settings.min_backoff) == (4, timedelta(seconds=2))
    found = origins(settings)
    assert found["max_retries"] == "environment (WORKER_MAX_RETRIES)"
    assert found["min_backoff"] == ".env"
    assert found["max_backoff"] == "default"


def test_a_relative_data_directory_is_the_projects(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a program is started; likewise the folder of the index."""
    monkeypatch.setenv("WORKER_DATA_DIR", "var/data")
    assert Settings.load().data_dir == project / "var" / "data"
    monkeypatch.setenv("WORKER_INDEX_DIR", "var/index")
    assert StoreSettings.load().index_dir == project / "var" / "index"


def test_the_plain_name_of_the_pool_size_is_accepted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefixed one wins."""
    monkeypatch.setenv("THREAD_POOL_SIZE", "8")
    settings = Settings.load()
    assert settings.thread_pool_size == 8
    assert origins(settings)["thread_pool_size"] == "environment (THREAD_POOL_SIZE)"
    monkeypatch.setenv("WORKER_THREAD_POOL_SIZE", "9")
    assert Settings.load().thread_pool_size == 9


@pytest.mark.parametrize(("given", "used"), [("0", 1), ("-5", 1), ("1024", 1024), ("1025", 1024), ("99999", 1024)])
def test_a_pool_size_outside_the_bounds_is_clamped_with_a_warning(
    given: str, used: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """1..1024."""
    monkeypatch.setenv("WORKER_THREAD_POOL_SIZE", given)
    with caplog.at_level(logging.WARNING):
        assert Settings.load().thread_pool_size == used
    assert (f"WORKER_THREAD_POOL_SIZE={given} is outside 1..1024" in caplog.text) == (str(used) != given)


def test_each_bad_value_is_one_line_with_name_value_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once."""
    bad = {
        "WORKER_LOG_LEVEL": "loud",
        "WORKER_MAX_RETRIES": "-1",
        "THREAD_POOL_SIZE": "many",
        "WORKER_TIME_LIMIT": "soon",
        "WORKER_MIN_BACKOFF": "0s",
    }
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    lines = str(caught.value).splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(f"{n}={v}" for n, v in bad.items())
    assert "'debug', 'info', 'warning' or 'error'" in str(caught.value)


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy."""
    monkeypatch.setenv("WORKER_SUMMARIZER", "openai")
    with pytest.raises(ConfigurationError, match="WORKER_SUMMARIZER_MODEL"):
        ModelSettings.load()
    monkeypatch.setenv("WORKER_MIN_BACKOFF", "2h")
    with pytest.raises(ConfigurationError, match="WORKER_MAX_BACKOFF"):
        Settings.load()


def test_secrets_are_masked_wherever_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the settings' own representation, in what `worker config` shows, and in bad values."""
    monkeypatch.setenv("WORKER_REDIS_URL", "redis://user:s3cret@host:1/0")
    monkeypatch.setenv("WORKER_SUMMARIZER_API_KEY", "sk-s3cret")
    settings, models = Settings.load(), ModelSettings.load()
    assert "s3cret" not in repr(settings) + repr(models)
    assert show_value(settings.redis_url) == "redis://user:***@host:1/0"
    assert show_value(models.summarizer_api_key) == "***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("redis://u:p%40w@h", "redis://u:***@h"),
        ("rediss://h:6379", "rediss://h:6379"),
        ("a redis://u:pw@h and redis://v:pw@i", "a redis://u:***@h and redis://v:***@i"),
        ("redis://u:p/w@h", "redis://u:***@h"),
        ("redis://u:p@w@h", "redis://u:***@h"),
        ("unix:///x.sock?password=pw", "unix:///x.sock?password=***"),
        ("unix:///x.sock?db=1&PassWord=p%26w&x=1", "unix:///x.sock?db=1&PassWord=***&x=1"),
        ("unix:///x.sock?p%61ssword=pw", "unix:///x.sock?p%61ssword=***"),
        ("postgresql://h/db?user=u&pwd=pw", "postgresql://h/db?user=u&pwd=***"),
        ("s3://b?aws_secret_access_key=pw&region=eu", "s3://b?aws_secret_access_key=***&region=eu"),
        ("https://h/v1?api-key=pw and https://i?token=pw", "https://h/v1?api-key=*** and https://i?token=***"),
        ("redis://u:pw@h?password=pw", "redis://u:***@h?password=***"),
        ("redis://h/0?client_name=a&db=1", "redis://h/0?client_name=a&db=1"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    """Also odd ones, and several in a text."""
    assert mask_secrets(url) == shown


@pytest.mark.parametrize("token", [" ", " " * 40, "hunter2", f" {'x' * 15} "])
@pytest.mark.parametrize("name", ["WORKER_WEB_TOKEN", "WORKER_WEB_READ_TOKEN"])
def test_a_token_that_can_be_guessed_is_refused(name: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line that does not show it, and says how to make a good one."""
    monkeypatch.setenv("WORKER_WEB_TOKEN", "x" * 16)
    monkeypatch.setenv(name, token)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{name}=***: must have at least 16 characters")
    assert "secrets.token_urlsafe()" in line
    assert "hunter2" not in line


def test_a_token_of_16_characters_is_taken_and_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with every other setting."""
    monkeypatch.setenv("WORKER_WEB_READ_TOKEN", "")
    monkeypatch.setenv("WORKER_WEB_TOKEN", "x" * 16)
    assert show_value(Settings.load().web_token) == "***"
    assert Settings.load().web_read_token is None
    monkeypatch.setenv("WORKER_WEB_TOKEN", "")
    assert Settings.load().web_token is None


def test_variables_that_name_no_setting_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most likely misspelt; those of any group are not."""
    monkeypatch.setenv("WORKER_REDISURL", "x")
    monkeypatch.setenv("WORKER_THREAD_POOL_SIZE", "3")
    monkeypatch.setenv("WORKER_EMBEDDER", "openai")
    [doubt] = variables_without_effect(GROUPS)
    assert doubt.found == "WORKER_REDISURL names no setting"
    assert doubt.remedy == "write WORKER_REDIS_URL, or unset it"


def test_the_settings_of_the_built_in_application_are_known_where_it_is_not_imported() -> None:
    """So that a worker of somebody else's project does not take them for misspelt ones."""
    assert set(OF_THE_APPLICATION) == {name for group in APPLICATION for name in group.model_fields}


def test_no_setting_has_a_name_that_kubernetes_gives_to_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person sets is never passed over."""
    names = sorted({variable(name) for group in GROUPS for name in group.model_fields})
    for name in names:
        monkeypatch.setenv(name, "1")
    assert list(variables_of_ours()) == names


def test_a_variable_of_a_part_that_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not misspelt, it has no effect; a bad value in it keeps nothing from working."""
    monkeypatch.setattr("worker.settings.groups.is_installed", lambda extra: extra != "recall")
    monkeypatch.setenv("WORKER_SYNC_BATCH", "many")
    [doubt] = variables_without_effect(GROUPS)
    assert doubt.found == "WORKER_SYNC_BATCH has no effect without the extra 'recall'"
    assert "pip install 'dramatiq-bridge[recall]'" in doubt.remedy
    Settings.read_all()


def test_bad_values_of_several_groups_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, although the stores read the framework's settings for their defaults."""
    bad = {"WORKER_GRACE": "soon", "WORKER_SYNC_BATCH": "0", "WORKER_SUMMARY_WORDS": "few"}
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.read_all()
    lines = str(caught.value).splitlines()
    assert sorted(line.partition("=")[0] for line in lines) == sorted(bad)


def test_defaults_follow_the_settings_that_are_put_in_force(tmp_path: Path) -> None:
    """The stores are in the data directory, whichever was read first; what was put in force itself stays."""
    put_in_force(RecallSettings(sync_batch=7))
    assert StoreSettings.in_force().index_dir == project_root() / ".worker" / "index"
    put_in_force(Settings(data_dir=tmp_path / "elsewhere"))
    assert StoreSettings.in_force().index_dir == tmp_path / "elsewhere" / "index"
    assert RecallSettings.in_force().sync_batch == 7
    put_in_force(None)
    assert RecallSettings.in_force().sync_batch == 100


def test_settings_of_a_class_that_extends_a_group_are_the_groups() -> None:
    """A program may have settings of its own beside the framework's."""

    class Extended(Settings):
        colour: str = "red"

    put_in_force(Extended(max_retries=3))
    assert Settings.in_force().max_retries == 3
    assert Extended.in_force().colour == "red"
    put_in_force(Settings(max_retries=4))
    assert Extended.in_force().max_retries == 10


@pytest.mark.parametrize("name", ["merge_timeout", "max_retrys", "WORKER_MAX_RETRIES"])
def test_a_name_that_is_no_setting_is_refused(name: str) -> None:
    """Ignored, it would be missed when it is needed; the settings of other groups are no exception."""
    values: dict[str, Any] = {name: "3"}
    with pytest.raises(ValidationError, match=name):
        Settings(**values)


def test_an_env_file_that_cannot_be_read_is_one_line(project: Path) -> None:
    """With its path, and what to do."""
    (project / ".env").write_bytes(b"WORKER_ACTORS=caf\xe9\n")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value).startswith(f"{project / '.env'} cannot be read: ")
    assert "UTF-8" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_uses_only_the_framework_neither_imports_nor_has_the_settings_of_the_built_in_application() -> None:
    """They are groups of their own, in the rooms that read them."""
    said = _run("import sys, worker; print(*worker.Settings.model_fields, *sys.modules)")
    assert said.returncode == 0
    words = set(said.stdout.split())
    assert "max_retries" in words
    application = {name for group in GROUPS if group is not Settings for name in group.model_fields}
    assert len(application) == 26
    assert not words & application
    assert not words & {group.__module__ for group in GROUPS if group is not Settings}


def test_the_built_in_actors_do_not_begin_with_a_bad_setting() -> None:
    """The first attempt of a merge would be late to tell it."""
    said = _run("import worker.tasks", WORKER_MERGE_TIMEOUT="soon", WORKER_EMBEDDER="none")
    assert said.returncode != 0
    last = said.stderr.splitlines()[-2:]
    assert any("WORKER_MERGE_TIMEOUT=soon: " in line for line in last)
    assert any("WORKER_EMBEDDER=none: " in line for line in last)


def _run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_settings_cannot_be_changed() -> None:
    """What is in force stays in force."""
    with pytest.raises(Exception, match="frozen"):
        Settings.load().max_retries = 3  # type: ignore[misc]


def test_host_names_that_nobody_is_let_in_by_are_doubted(clean_environment: None) -> None:
    """Without a token only names of this machine are answered."""
    names = {"web_allowed_hosts": ("jobs.example",)}
    [doubt] = Settings(**names).doubts()  # type: ignore[arg-type]
    assert doubt.found == "WORKER_WEB_ALLOWED_HOSTS=jobs.example has no effect without WORKER_WEB_TOKEN"
    assert list(Settings(**names, web_token=SecretStr("x" * 16)).doubts()) == []  # type: ignore[arg-type]
