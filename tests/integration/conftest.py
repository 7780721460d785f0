"""The servers of the built-in application's data: one PostgreSQL and one S3 for the tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from tests.support.postgres import Postgres, running_postgres
from tests.support.s3 import S3, Door, door_before
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.settings import StoreSettings


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests of this process; each makes databases of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 for all tests of this process; each makes buckets of its own."""
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The objects are in an empty bucket, behind a door of the test's own."""
    with door_before(s3) as door:
        variables = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
        for name, value in (variables | {"ENDPOINT_URL": door.url}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        put_in_force(StoreSettings(objects_url=SecretStr(f"s3://{s3.create()}/production")))
        yield door
