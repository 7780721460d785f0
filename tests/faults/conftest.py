"""The runners on which the same faults befall the same actors."""

from __future__ import annotations

import pytest

from tests.support.runners import RUNNERS


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    """Each runner of attempts."""
    return str(request.param)
