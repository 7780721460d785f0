"""What several modules of unit tests share: a worker on a broker without a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from worker.testing import StubWorker, stub_worker


@pytest.fixture
def stub() -> Iterator[StubWorker]:
    """A worker without a server; the actors of the test are gone after it."""
    with stub_worker() as running:
        yield running
        running.broker.actors.clear()
