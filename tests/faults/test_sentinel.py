"""Another server becomes the primary, as the sentinels decide: all go on there, and each message is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import settle
from tests.support.load import Load
from tests.support.project import Project
from tests.support.scene import Scene, scene
from tests.support.sentinels import Watched, watched
from tests.support.waiting import wait_until
from tests.support.web import serving
from worker.broker.named_leases import lease
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.web import create_app


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path, WORKER_LEASE="2s") as made:
        yield made


@pytest.fixture
def servers(tmp_path: Path, opened: Scene) -> Iterator[Watched]:
    """The scene's server is the primary, and whoever is started finds it through the sentinels."""
    with watched(tmp_path, opened.server) as made:
        opened.go_to(made.url)
        yield made


def under_load(opened: Scene) -> Load:
    """Two workers, and a sender that has sent something."""
    opened.start_ready("a")
    opened.start_ready("b")
    load = Load(opened, 0.005)
    wait_until(lambda: len(load.sent) > 50)
    return load


def test_a_planned_failover_under_load_loses_nothing(opened: Scene, servers: Watched) -> None:
    """There and back: whatever a sender was told is stored runs, and the history of each message is whole."""
    load = under_load(opened)
    for _ in range(2):
        opened.client = servers.fail_over().client
        sent = len(load.sent)
        wait_until(lambda sent=sent: len(load.sent) > sent + 50)  # type: ignore[misc]
    sent_ids = load.end()
    opened.wait_for_end(len(sent_ids))
    assert settle(opened, sent_ids) == load.expected


def test_a_primary_that_is_killed_under_load_takes_only_its_last_moment_with_it(
    opened: Scene, servers: Watched
) -> None:
    """Replication is asynchronous: what was acknowledged in the last moment may be lost; all else runs."""
    load = under_load(opened)
    safe = set(load.sent)
    wait_until(lambda: len(load.sent) > len(safe) + 50)
    opened.server.kill()
    opened.client = servers.wait_for_another(opened.server).client
    sent = len(load.sent)
    wait_until(lambda: len(load.sent) > sent + 50)
    everything = load.end()
    lost = {one for one in everything if not opened.client.exists(f"{{worker}}:m:{one}")}
    assert lost.isdisjoint(safe)
    assert len(lost) < 50
    kept = [one for one in everything if one not in lost]
    opened.wait_for_end(len(kept))
    settle(opened, kept)


def test_the_web_the_commands_and_leases_go_on(opened: Scene, servers: Watched, tmp_path: Path) -> None:
    """After a planned failover, and a kill with a sentinel gone too; doctor and status tell where the primary is."""
    own = Settings.model_validate({"data_dir": tmp_path, "redis_url": servers.url})
    put_in_force(own)
    project = Project(tmp_path / "project", WORKER_REDIS_URL=servers.url)
    with serving(create_app(own)) as web, lease("before"):
        for is_kill in (False, True):
            before = servers.primary()
            if is_kill:
                before.kill()
                servers.sentinels[0].kill()
                wait_until(lambda before=before: servers.primary() is not before)  # type: ignore[misc]
                opened.client = servers.primary().client
            else:
                opened.client = servers.fail_over().client
            opened.send_surely("work")
            wait_until(lambda: web.get("/api/states").json()["states"]["queued"] == opened.states()["queued"] > 0)
            with lease(f"after {is_kill}"):
                assert opened.client.exists(f"{{worker}}:lease:after {is_kill}")
            place = f"{servers.url} (primary 127.0.0.1:{servers.primary().port})"
            said = " ".join(project.worker("doctor", "--json", code=1).stdout.split())  # no worker is alive
            assert place in said
            assert place in " ".join(project.worker("status", "--json").stdout.split())


def test_a_worker_that_is_started_while_the_primary_is_away_begins_when_there_is_another(
    opened: Scene, servers: Watched
) -> None:
    """It says why it waits, and takes what was sent before."""
    sent = opened.send_many("work", [[]] * 5)
    # The replica has them all.
    wait_until(lambda: servers.servers[1].client.hget("{worker}:states", "queued") == b"5")
    opened.server.kill()
    worker = opened.start("late")
    opened.client = servers.wait_for_another(opened.server).client
    opened.wait_for_end(len(sent))
    assert settle(opened, sent) == {"completed": 5}
    assert worker.process.poll() is None
