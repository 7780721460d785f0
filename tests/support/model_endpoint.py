"""A local HTTP server that stands in for a model's endpoint: it answers as it is told, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What the model was given to summarize."""
        return str(self.body["messages"][-1]["content"])

    @property
    def instruction(self) -> str:
        """What the model was told to do with it."""
        return str(self.body["messages"][0]["content"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the endpoint answers.

    Attributes:
        dribble: Sends the body byte by byte, with so many seconds between two, until the client is gone.
        silent: Sends nothing until the endpoint is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    dribble: float | None = None
    silent: bool = False


def says(text: str | None) -> Answer:
    """A model's answer of that text."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return as_json({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices})


def as_json(value: object) -> Answer:
    """Any JSON, with status 200."""
    return Answer(body=json.dumps(value).encode())


def fails(status: int, **headers: str) -> Answer:
    """An error as endpoints word it; header names are written with underscores."""
    body = json.dumps({"error": {"message": f"this is a {status}", "type": "test"}}).encode()
    return Answer(
        status=status, body=body, headers=HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    )


class ModelEndpoint:
    """Answers in the order of `answers`, and then as `otherwise` says; thread-safe."""

    def __init__(self, answers: Iterable[Answer], otherwise: Callable[[Request], Answer]) -> None:
        self.closed = threading.Event()
        self._answers = deque(answers)
        self._otherwise = otherwise
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL to configure."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        with self._lock:
            return list(self._requests)

    def answer(self, request: Request) -> Answer:
        """The next answer."""
        with self._lock:
            self._requests.append(request)
            if self._answers:
                return self._answers.popleft()
        return self._otherwise(request)

    def close(self) -> None:
        """Ends the server; answers that are held back end too."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        endpoint = cast("ModelEndpoint", self.server.endpoint)  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = endpoint.answer(Request(path=self.path, headers=headers, body=body))
        with contextlib.suppress(ConnectionError):
            if answer.silent:
                endpoint.closed.wait()
                return
            self._send(answer, endpoint.closed)

    def _send(self, answer: Answer, closed: threading.Event) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if answer.dribble is None:
            self.wfile.write(answer.body)
            return
        for byte in answer.body:
            self.wfile.write(bytes([byte]))
            if closed.wait(answer.dribble):
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        """Nothing: the tests look at the requests."""


@contextlib.contextmanager
def model_endpoint(
    *answers: Answer, otherwise: Callable[[Request], Answer] = lambda _: says("A summary.")
) -> Iterator[ModelEndpoint]:
    """An endpoint that gives these answers and then others, until the block ends."""
    endpoint = ModelEndpoint(answers, otherwise)
    try:
        yield endpoint
    finally:
        endpoint.close()
