"""Fixtures for pytest: with `pytest_plugins = ["worker.testing.pytest_plugin"]`, a `conftest.py` makes them known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dramatiq.brokers.stub import StubBroker

from worker import testing


@pytest.fixture
def stub_broker() -> Iterator[StubBroker]:
    """A `StubBroker` with our middleware, on which every actor of the program is until the test ends; no server."""
    with testing.stub_broker() as broker:
        yield broker
