"""Crawls the site with coroutines as shipped, then with a sync actor on eight threads; each in one worker process."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from crawler.actors import fetch_page, fetch_page_on_thread
from worker import Settings
from worker.history.filters import MessageFilter
from worker.history.query import count_messages
from worker.server.connection import connect

WAYS = (
    ("coroutines, as shipped", fetch_page, ()),
    ("sync, --threads 8", fetch_page_on_thread, ("--threads", "8")),
)
WAITING = ("queued", "delayed", "running")
POLL = 0.02
STOP_TIMEOUT = 30.0


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Runs `python -m …`, and ends it."""
    # httpx logs each request as information.
    environment = {"WORKER_LOG_LEVEL": "warning", **os.environ}
    with subprocess.Popen(
        [sys.executable, "-m", *words], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


class Crawl:
    """One crawl with one of the actors, seen through the history."""

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._since = datetime.now(UTC)
        self._client = connect(Settings.load())

    def count(self, *states: str) -> int:
        """The number of its messages in these states."""
        return count_messages(self._client, MessageFilter(actor=self._actor, states=states, since=self._since))

    def wait_for(self, states: Sequence[str], at_most: int, workers: subprocess.Popen[str]) -> float:
        """Waits until at most this many of its messages are in these states, and returns the time."""
        while self.count(*states) > at_most:
            if workers.poll() is not None:
                sys.exit("the workers have ended: see what they said")
            time.sleep(POLL)
        return time.monotonic()


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(prog="python -m crawler", description=__doc__)
    parser.add_argument("--pages", type=int, default=2000)
    pages = parser.parse_args().pages
    print(f"{'':24}{'seconds':>10}{'pages/s':>10}{'completed':>11}{'skipped':>9}{'dead':>6}")
    for title, actor, options in WAYS:
        with running("crawler.site") as site:
            url = site.stdout.readline().strip() if site.stdout else ""
            crawl = Crawl(actor.actor_name)
            actor.send_many([actor.message(f"{url}/pages/{number}") for number in range(pages)])
            with running("dramatiq", "crawler.actors", "--processes", "1", *options) as workers:
                began = crawl.wait_for(("queued",), pages - 1, workers)
                seconds = crawl.wait_for(WAITING, 0, workers) - began
            counts = [crawl.count(state) for state in ("completed", "skipped", "dead")]
        print(f"{title:24}{seconds:10.2f}{pages / seconds:10.0f}{counts[0]:11}{counts[1]:9}{counts[2]:6}", flush=True)


if __name__ == "__main__":
    main()
