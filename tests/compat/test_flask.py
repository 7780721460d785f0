"""A project with flask-dramatiq, as the how-to shows it: by configuration alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.compat.pages import files_of
from tests.support.project import Project
from tests.support.waiting import wait_until
from worker.history.filters import MessageFilter
from worker.history.query import all_messages

ORDER = """
import json
from shop import create_app
web = create_app().test_client()
print(json.dumps([web.post(f"/orders/{n}").get_json()["message_id"] for n in range(3)]))
"""

CHAIN = """
import json
from shop import create_app, dramatiq
create_app()
print(json.dumps([[type(one).__name__, getattr(one, "max_retries", None)] for one in dramatiq.broker.middleware]))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """The how-to's project."""
    project = Project(tmp_path)
    files_of("flask.md", project.elsewhere)
    return project


def test_workers_run_what_flask_sends(shop: Project) -> None:
    """Each message once, inside the application's context, which the coroutine sees too."""
    try:
        with shop.background(
            sys.executable, "-m", "flask", "--app", "shop", "worker", "--processes", "1", "--threads", "2"
        ):
            sent = json.loads(shop.run(sys.executable, "-c", ORDER).stdout)

            def completed() -> list[str]:
                wanted = MessageFilter(states=("completed",))
                return [message.id for message in all_messages(shop.client, wanted)]

            wait_until(lambda: len(completed()) == 3)
            assert sorted(completed()) == sorted(sent)
        events = [event.event for event in shop.events(sent[0])]
        assert events == ["confirm.started", "confirm.completed"]
    finally:
        shop.down()


def test_nothing_is_doubled(shop: Project) -> None:
    """The extension hands over all of Dramatiq's own middleware: ours stays, with the values of the settings."""
    done = shop.run(sys.executable, "-c", CHAIN, variables={"WORKER_MAX_RETRIES": "4"})
    found = json.loads(done.stdout)
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    assert names[-1] == "AppContextMiddleware"
    assert [retries for name, retries in found if name == "RetryPolicy"] == [4]
    assert "takes the place" not in done.stderr
    assert not shop.data_dir.exists()
