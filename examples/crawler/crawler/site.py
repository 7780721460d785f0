"""A site to crawl, on a port of this machine: `python -m crawler.site` prints where it is, and serves it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from http import HTTPStatus
from typing import NamedTuple

SECONDS = 0.1
"""The time that each page takes."""
MISSING = 13
BUSY = 50
OUT_OF = 100
BUSY_SECONDS = 1


class Answer(NamedTuple):
    """An answer to a request."""

    status: HTTPStatus
    body: str
    header: str = ""

    def encoded(self) -> bytes:
        """The bytes to send; the connection stays open."""
        body = self.body.encode()
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: text/html; charset=utf-8\r\n{self.header}\r\n".encode() + body


class Site:
    """Pages by number: of each hundred, one is missing, and one is busy when it is first asked for."""

    def __init__(self) -> None:
        self._asked: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection, until it is closed."""
        try:
            while request := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                writer.write((await self._answer(request.split()[1].decode())).encoded())
                await writer.drain()
        except ConnectionError:
            pass  # a client may go at any time
        finally:
            writer.close()

    async def _answer(self, path: str) -> Answer:
        await asyncio.sleep(SECONDS)
        number = path.removeprefix("/pages/")
        if not number.isdecimal() or int(number) % OUT_OF == MISSING:
            return Answer(HTTPStatus.NOT_FOUND, "")
        if int(number) % OUT_OF == BUSY and number not in self._asked:
            self._asked.add(number)
            return Answer(HTTPStatus.TOO_MANY_REQUESTS, "", f"Retry-After: {BUSY_SECONDS}\r\n")
        return Answer(HTTPStatus.OK, f"<html><head><title>Page {number}</title></head></html>")


async def main() -> None:
    """Serves the site until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    server = await asyncio.start_server(Site().serve, "127.0.0.1", parser.parse_args().port, backlog=1024)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
