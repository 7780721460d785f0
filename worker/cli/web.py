"""`worker web`: the dashboard and the API."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_text
from worker.web.server import serve


def web(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: WORKER_WEB_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Default: WORKER_WEB_PORT.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the dashboard and the API; Ctrl-C stops it."""
    settings = begin(stays=True)
    given = {"web_host": host, "web_port": port}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})

    listens_at = None

    def listening(url: str) -> None:
        nonlocal listens_at
        listens_at = url
        if as_json:
            print_json({"state": "up", "url": url})
        else:
            print_text(f"the dashboard is at {url}")

    serve(settings, listening)
    if as_json:
        print_json({"state": "stopped", "url": listens_at})
