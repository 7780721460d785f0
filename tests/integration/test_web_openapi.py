"""The whole description, tried by Schemathesis on a real server with real messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic import SecretStr

from tests.support.web import serving, some_messages
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings
from worker.web import create_app

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# An actor says by itself what it takes: no description can.
BEYOND_THE_DESCRIPTION = "positive_data_acceptance"
# What is too long may be too large before it is read.
CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 413, 415, 422, 503]
"""


def test_whatever_the_description_allows_or_forbids_is_answered_as_it_says(
    settings: Settings, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    """No server error, no undescribed answer, nothing accepted that is forbidden."""
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    own = settings.model_copy(
        update={"actors": ("tests.support.web",), "web_show_arguments": True, "log_level": "error"}
    )
    with some_messages(own), serving(create_app(own)) as web:
        done = subprocess.run(
            [
                *(str(SCHEMATHESIS), "run", f"{web.base_url}/openapi.json", "--no-color"),
                *("--max-examples", "5", "--workers", "1", "--request-timeout", "60"),
                *("--exclude-checks", BEYOND_THE_DESCRIPTION),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr
    assert "Tested: 27" in done.stdout


def test_what_needs_a_token_is_described_so(settings: Settings) -> None:
    """Probes do not; without a token set nothing does."""
    assert "securitySchemes" not in create_app(settings).openapi()["components"]
    described = create_app(settings.model_copy(update={"web_token": SecretStr("t")})).openapi()
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    open_to_all = [
        path for path, methods in described["paths"].items() for how in methods.values() if not how.get("security")
    ]
    assert open_to_all == ["/health/live", "/health/ready"]
