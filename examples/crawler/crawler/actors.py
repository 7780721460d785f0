"""The actors: the same service as a coroutine, and from a worker thread that waits for it."""

from crawler.services import fetch
from worker import actor, run_async_in_shared_loop


@actor(subject=("url",))
async def fetch_page(url: str) -> None:
    """Fetches a page; while it waits, the process does other things."""
    await fetch(url)


@actor(subject=("url",))
def fetch_page_on_thread(url: str) -> None:
    """Does the same; while it waits, so does one of the worker's threads."""
    run_async_in_shared_loop(fetch(url))
