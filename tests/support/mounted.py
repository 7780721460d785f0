"""Another project's application, which mounts ours below a path; tells its address on a line."""

from __future__ import annotations

import json
import socket
import sys
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from worker.web import create_app

PATH = "/behind/the shop"


def main() -> None:
    app = FastAPI()
    app.mount(PATH, create_app())
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{bound.getsockname()[1]}{quote(PATH)}/"
    sys.stdout.write(json.dumps({"url": address}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])


if __name__ == "__main__":
    main()
