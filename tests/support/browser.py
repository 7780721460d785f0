"""A real browser on the dashboard: headless Chromium, whose complaints are collected and must be none."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Response, expect, sync_playwright

from tests.support.waiting import TIMEOUT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP = (1280, 860)
PHONE = (390, 844)
WAIT_MS = TIMEOUT * 1_000


def chromium() -> str:
    """Where Chromium is."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium on PATH: `sudo make browser`, or install chromium yourself", pytrace=False)
    return found


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium, until the block ends."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visitor with cookies and a storage of its own; what its pages complain of is kept.

    Attributes:
        page: The page that is open.
        complaints: Errors on the console (violations of the content security policy among them), errors of scripts,
            requests to other servers, and answers that are errors.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["dark", "light"] = "light",
        zone: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.complaints: list[str] = []
        self._expected: list[str] = []
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            has_touch=size == PHONE,
            timezone_id=zone,
        )
        self._context.set_default_timeout(WAIT_MS)
        self.page = self.new_page()

    def new_page(self) -> Page:
        """Another page of the same visitor."""
        page = self._context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        return page

    def go(self, path: str) -> Page:
        """Opens a page."""
        self.page.goto(self.url + path)
        return self.page

    def cookies(self) -> list[Any]:
        """What the browser keeps for the server."""
        return list(self._context.cookies())

    def expects(self, complaint: str) -> None:
        """Complaints with that text belong to the visit, whenever they come."""
        self._expected.append(complaint)

    def close(self) -> None:
        """Ends the visit; there was nothing to complain of but what was expected."""
        self._context.close()
        assert [one for one in self.complaints if not any(text in one for text in self._expected)] == []

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.complaints.append(f"another server is asked: {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")


@contextlib.contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """A visit until the block ends; a test that fails says what the page showed."""
    visit = Visit(browser, url, **options)
    try:
        yield visit
    except BaseException as error:
        with contextlib.suppress(Error):
            error.add_note(f"{visit.page.url} showed:\n{visit.page.inner_text('body')[:3_000]}\n{visit.complaints}")
        raise
    visit.close()
