"""A project with django-dramatiq and dramatiq-crontab, as the how-to shows it: by configuration alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.compat.pages import files_of
from tests.support.project import Project
from tests.support.waiting import wait_until
from worker.history.filters import MessageFilter
from worker.history.query import all_messages

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The how-to's project, with its tables."""
    project = Project(tmp_path_factory.mktemp("django"))
    files_of("django.md", project.elsewhere)
    (project.elsewhere / "manage.py").write_text(MANAGE)
    (project.elsewhere / "shop" / "__init__.py").touch()
    manage(project, "migrate", "--verbosity", "0")
    yield project
    project.down()


def manage(project: Project, *words: str, code: int = 0, **variables: str) -> str:
    return project.run(sys.executable, "manage.py", *words, code=code, variables=variables).stdout


def in_shell(project: Project, code: str) -> Any:
    """What a line of code in Django's shell prints last, as JSON."""
    return json.loads(manage(project, "shell", "--no-imports", "-c", code).splitlines()[-1])


def completed(project: Project, actor: str) -> list[str]:
    wanted = MessageFilter(actor=actor, states=("completed",))
    return [message.id for message in all_messages(project.client, wanted)]


def test_workers_run_what_django_sends_and_the_admin_shows_it(site: Project) -> None:
    """Each message once: in our history, and as a task of django-dramatiq."""
    send = "import json; from shop.tasks import pack; print(json.dumps([pack.send(n).message_id for n in range(3)]))"
    # Not their states: django-dramatiq writes "enqueued" after the message was sent, and may have run.
    rows = (
        "import json; from django_dramatiq.models import Task;"
        "print(json.dumps([str(one.id) for one in Task.tasks.all()]))"
    )
    with site.background(sys.executable, "manage.py", "rundramatiq", "--processes", "1", "--threads", "2"):
        sent = in_shell(site, send)
        wait_until(lambda: len(completed(site, "confirm")) == 3)
        wait_until(lambda: not site.waiting())
    assert sorted(completed(site, "pack")) == sorted(sent)
    assert sorted(in_shell(site, rows)) == sorted([*completed(site, "pack"), *completed(site, "confirm")])


def test_schedules_send_each_message_once(site: Project) -> None:
    """Those of dramatiq-crontab; its own heartbeat is an actor too, and runs."""
    with site.background(sys.executable, "manage.py", "crontab"):
        wait_until(lambda: len(list(all_messages(site.client, MessageFilter(actor="tidy")))) >= 2)
    found = list(all_messages(site.client, MessageFilter(actor="tidy")))
    moments = sorted(message.since.timestamp() for message in found)
    assert all(later - sooner > 0.5 for sooner, later in pairwise(moments))


def test_the_how_tos_own_tests_pass(site: Project) -> None:
    """With a worker of django-dramatiq's on a broker without a server."""
    manage(site, "test", "--verbosity", "0", WORKER_REDIS_URL="redis://127.0.0.1:1/0")


def test_nothing_is_doubled(site: Project) -> None:
    """With all of Dramatiq's own middleware in the list, the chain has one of each kind, and our values count."""
    kinds = ["AgeLimit", "TimeLimit", "Callbacks", "Retries", "Pipelines", "ShutdownNotifications"]
    theirs = [f"dramatiq.middleware.{kind}" for kind in kinds]
    (site.elsewhere / "all_of_them.py").write_text(
        f"from settings import *\nDRAMATIQ_BROKER = {{**DRAMATIQ_BROKER, 'MIDDLEWARE': {theirs!r}}}\n"
    )
    code = (
        "import dramatiq, json; broker = dramatiq.get_broker();"
        "print(json.dumps([[type(one).__name__, getattr(one, 'max_retries', None)] for one in broker.middleware]))"
    )
    variables = {"DJANGO_SETTINGS_MODULE": "all_of_them"}
    done = site.run(sys.executable, "manage.py", "shell", "--no-imports", "-c", code, variables=variables)
    found = json.loads(done.stdout.splitlines()[-1])
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    assert {"AgeLimit", "TimeLimit", "Callbacks", "RetryPolicy", "Pipelines", "ShutdownNotifications"} <= set(names)
    assert [retries for name, retries in found if name == "RetryPolicy"] == [10]
    assert "takes the place" not in done.stderr


def test_an_encoder_that_gives_no_json_is_refused(site: Project) -> None:
    """When the broker is made, in a line that names it."""
    Path(site.elsewhere / "pickled.py").write_text(
        "from settings import *\nDRAMATIQ_ENCODER = 'dramatiq.encoder.PickleEncoder'\n"
    )
    variables = {"DJANGO_SETTINGS_MODULE": "pickled"}
    done = site.run(sys.executable, "manage.py", "check", code=1, variables=variables)
    assert "ConfigurationError: dramatiq.set_encoder(PickleEncoder()): messages are JSON" in done.stderr
