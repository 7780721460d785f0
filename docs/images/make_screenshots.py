"""Makes the pictures of the README from a real run: `make screenshots`, or `python -m docs.images.make_screenshots`.

A server, workers and the dashboard are started in a temporary folder; a shop's messages go through them for some
minutes; then the pages are photographed, and the output of `worker status`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser
from rich.console import Console
from rich.text import Text

from tests.support.browser import Visit, browsing
from tests.support.project import ROOT, WORKER, Project
from tests.support.waiting import wait_until
from worker.history.filters import MessageFilter
from worker.history.query import ask, page_of_messages

HERE = Path(__file__).parent
SIZE = (1280, 860)
COLUMNS = 156


def main() -> None:
    """Runs the demo, and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12, help="minutes that the demo runs before")
    parser.add_argument("--to", type=Path, default=HERE, help="the folder for the pictures")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    shop = Project(
        folder,
        PYTHONPATH=str(ROOT),
        WORKER_ACTORS="docs.images.demo",
        WORKER_WEB_SHOW_ARGUMENTS="true",
        WORKER_MIN_BACKOFF="5s",
        WORKER_MAX_BACKOFF="1m",
        COLUMNS=str(COLUMNS),
        TERM="xterm-256color",
    )
    try:
        with running(shop, given.minutes) as url, browsing() as browser:
            photograph(browser, url, shop, given.to, given.minutes)
    finally:
        shop.down()
        shutil.rmtree(folder)


@contextlib.contextmanager
def running(shop: Project, minutes: float) -> Iterator[str]:
    """Runs workers, messages and the dashboard; yields the dashboard's address."""
    pool = [sys.executable, "-m", "dramatiq", "docs.images.demo", "--processes", "2", "--threads", "6"]
    load = [sys.executable, "-m", "docs.images.load", str(minutes + 2)]
    web = ["/usr/bin/env", WORKER, "web", "--port", "0", "--json"]
    with shop.background(*pool), shop.background(*load), shop.background(*web):
        log = shop.folder / "env.log"
        wait_until(lambda: log.exists() and '"url"' in log.read_text(), 60)
        line = next(line for line in log.read_text().splitlines() if '"url"' in line)
        yield str(json.loads(line)["url"])


def photograph(browser: Browser, url: str, shop: Project, to: Path, minutes: float) -> None:
    """Photographs a timeline, and the overview in light and dark, after some minutes so that its charts are full."""
    light = Visit(browser, url, size=SIZE, scheme="light")
    dark = Visit(browser, url, size=SIZE, scheme="dark")
    for visit in (light, dark):
        visit.go("/")
    light.page.wait_for_timeout(60_000 * minutes)
    for name, visit in {"light": light, "dark": dark}.items():
        visit.page.bring_to_front()
        visit.page.wait_for_timeout(2_500)
        visit.page.screenshot(path=to / f"dashboard-{name}.png")
    said = on_a_terminal(shop, WORKER, "status").replace(str(shop.data_dir), "~/shop/.worker")
    (to / "status.svg").write_text(picture_of(said))
    light.go(f"/messages/{report(shop)}")
    light.page.locator("#attempt-3").evaluate("one => one.open = false")
    light.page.locator("#attempt-2").evaluate("one => one.open = true")
    light.page.screenshot(path=to / "dashboard-message.png")
    light.close()
    dark.close()


def on_a_terminal(shop: Project, *words: str) -> str:
    """What a command prints on a terminal."""
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb") as screen, os.fdopen(follower, "wb") as terminal:
        command = subprocess.Popen(words, stdout=terminal, cwd=shop.elsewhere, env=shop.environment)
        terminal.close()
        said = bytearray()
        # The kernel says that nothing more comes by an error.
        with contextlib.suppress(OSError):
            while part := os.read(screen.fileno(), 65_536):
                said += part
        command.wait()
    return said.decode().replace("\r\n", "\n")


def report(shop: Project) -> str:
    """The id of a message with an interesting timeline."""
    wanted = MessageFilter(actor="monthly_report", states=("completed",))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for message in ask(shop.client, page_of_messages(wanted)).messages:
            if message.attempts == 3:
                return message.id
    raise SystemExit("no report has completed: let the demo run longer")


def picture_of(said: str) -> str:
    """The output of a terminal as SVG, without fonts from other servers."""
    console = Console(record=True, width=COLUMNS, file=Path("/dev/null").open("w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(said.rstrip()))
    drawn = console.export_svg(title="worker status")
    head, _, rest = drawn.partition("@font-face")
    _, _, rest = rest.rpartition("@font-face")
    return head + rest.partition("}")[2].lstrip() if rest else drawn


if __name__ == "__main__":
    main()
