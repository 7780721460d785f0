"""moto's S3 in a process of its own, and doors before it that refuse, are slow, or are shut."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.waiting import wait_until

HOST = "127.0.0.1"
_LISTENS = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


class S3:
    """A running S3.

    Attributes:
        port: Its port.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "s3.log"
        self._buckets = itertools.count()
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", HOST, "-p", "0"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(
            lambda: self._process.poll() is not None or _LISTENS.search(self._log.read_text()), explain=self._said
        )
        found = _LISTENS.search(self._log.read_text())
        assert found, self._said()
        self.port = int(found[1])

    def create(self) -> str:
        """Makes an empty bucket; its name."""
        name = f"recordings-{next(self._buckets)}"
        connection = http.client.HTTPConnection(HOST, self.port)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{name}")
            assert connection.getresponse().status == 200
        return name

    def stop(self) -> None:
        """Ends it, with its buckets."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        return self._log.read_text()


class Door(ThreadingHTTPServer):
    """Passes requests on to an S3.

    Attributes:
        refuses: While it is true, every request is answered with 503.
        pause: Seconds for which each request waits.
        asked: How many requests have come.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, s3: S3, port: int) -> None:
        super().__init__((HOST, port), _Passing)
        self.behind = s3.port
        self.refuses = False
        self.pause = 0.0
        self.asked = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.server_address[1]}"


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def do_GET(self) -> None:
        self.server.asked += 1
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(self.server.pause)
        if self.server.refuses:
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        connection = http.client.HTTPConnection(HOST, self.server.behind)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, content, dict(self.headers.items()))
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - as the library names them

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        # An answer to HEAD tells the length of what it leaves out.
        kept.setdefault("Content-Length", str(len(content)))
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in kept.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - as the library names it


_OF_ONE_CONNECTION = {"connection", "transfer-encoding", "date", "server"}


@contextlib.contextmanager
def door_before(s3: S3, port: int = 0) -> Iterator[Door]:
    """A door, until the block ends; then it is shut."""
    with Door(s3, port) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()
