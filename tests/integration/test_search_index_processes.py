"""Several processes on one search index: they write and read at once, and some are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.test_search_index import DIMENSIONS, ask, document, file, texts_of
from worker.settings import Settings
from worker.stores.index import SearchIndex
from worker.stores.settings import StoreSettings

FILES = 12
ROUNDS = 15

WRITER = """
import sys
from pathlib import Path
import numpy as np
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import FileChunks, NewChunk
from worker.stores.index import SearchIndex

FOLDER, REPOSITORY, ROUNDS, FILES, DIMENSIONS = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def files(round_):
    # As many chunks as the round says: a file that is half one round's and half another's is seen.
    for number in range(FILES):
        count = round_ % 4 + 1
        chunks = [NewChunk(text=f"round{round_}", start_line=n, end_line=n) for n in range(count)]
        vectors = np.ones((count, DIMENSIONS), np.float32)
        yield FileChunks(path=f"{number}.py", language=None, hash=str(round_), size=count, changed_ns=0, chunks=chunks,
                         vectors=vectors)

async def write():
    async with SearchIndex.open(Path(FOLDER), "made up", DIMENSIONS) as index:
        print("ready", flush=True)
        sys.stdin.readline()
        for round_ in range(ROUNDS):
            await index.replace_files(REPOSITORY, list(files(round_)))
            print(round_, flush=True)
            if round_ % 7 == 6:
                await index.optimize()

put_in_force(Settings(data_dir=FOLDER))
run_async_in_new_loop(write)
"""


@contextlib.contextmanager
def writing(settings: Settings, repository: str, rounds: int = ROUNDS) -> Iterator[subprocess.Popen[str]]:
    """A process that replaces the files of a repository, once it is let go; it has ended at the end."""
    words = [StoreSettings.in_force().index_dir, repository, rounds, FILES, DIMENSIONS]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def rounds_seen(index: SearchIndex, repository: str) -> set[str]:
    """The rounds of which something is stored; fails if a file is not whole."""
    chunks = index._table.query().where(f"kind = 'code' AND repository = '{repository}'").select(["path", "text"])
    by_file: dict[str, list[str]] = {}
    for row in await chunks.to_list():
        by_file.setdefault(row["path"], []).append(row["text"])
    for path, texts in by_file.items():
        [text] = set(texts)
        assert len(texts) == int(text.removeprefix("round")) % 4 + 1, f"{path} is half of {text}"
    return {text for texts in by_file.values() for text in texts}


def test_writers_do_not_fail_each_other_and_readers_see_whole_commits(settings: Settings) -> None:
    """Three processes replace and optimize, this one reads all the while and writes notes."""
    names = ["a", "b", "c"]

    async def read_on(index: SearchIndex, processes: list[subprocess.Popen[str]]) -> int:
        for process in processes:
            let_go(process)
        reads = 0
        while any(process.poll() is None for process in processes):
            for name in names:
                assert len(await rounds_seen(index, name)) <= 1
            await index.replace_documents([document("note", str(reads), f"note {reads}")])
            reads += 1
        return reads

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(writing(settings, name)) for name in names]
        assert [line(process) for process in processes] == ["ready"] * 3
        reads = ask(settings, lambda index: read_on(index, processes))
        # LanceDB tells of each conflict between who writes and who optimizes, before it is tried again.
        ends = [(process.communicate()[1], process.returncode) for process in processes]
        assert [(code, "Traceback" in said) for said, code in ends] == [(0, False)] * 3
    assert reads > 0
    for name in names:
        assert ask(settings, lambda index, name=name: rounds_seen(index, name)) == {f"round{ROUNDS - 1}"}  # type: ignore[misc]
        states = ask(settings, lambda index, name=name: index.files_of(name))  # type: ignore[misc]
        assert {state.hash for state in states.values()} == {str(ROUNDS - 1)}
        assert len(states) == FILES
    assert len(ask(settings, lambda index: index.search_text("note", limit=10_000))) == reads


def test_processes_that_make_the_index_at_once_share_it(settings: Settings) -> None:
    """As the pools of `worker up` do at their first messages."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(writing(settings, str(number), 1)) for number in range(3)]
        assert [line(process) for process in processes] == ["ready"] * 3
        for process in processes:
            let_go(process)
        assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert [ask(settings, lambda index, n=str(n): index.totals(n)).files for n in range(3)] == [FILES] * 3  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_that_is_killed_leaves_whole_files(settings: Settings, seed: int) -> None:
    """At any moment of a replacement; the next writer goes on."""
    chance = random.Random(seed)
    with writing(settings, "a", 10_000) as process:
        assert line(process) == "ready"
        let_go(process)
        done = -1
        for _ in range(chance.randint(1, 6)):
            done = int(line(process))
        # Not a wait for something: any moment will do.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    async def look(index: SearchIndex) -> set[str]:
        states = await index.files_of("a")
        seen = await rounds_seen(index, "a")
        assert {f"round{state.hash}" for state in states.values()} == seen
        return seen

    [seen] = ask(settings, look)
    assert int(seen.removeprefix("round")) >= done
    ask(settings, lambda index: index.replace_files("a", [file("0.py", "after it")]))
    assert texts_of(settings, "0.py") == ["after it"]
    ask(settings, lambda index: index.optimize())
    assert ask(settings, lambda index: index.totals("a")).files == FILES


def test_what_a_process_writes_another_sees_at_once(settings: Settings) -> None:
    """Although it has the index open since before."""

    async def watch(index: SearchIndex) -> set[str]:
        with writing(settings, "a", 1) as process:
            assert line(process) == "ready"
            let_go(process)
            assert line(process) == "0"
            return await rounds_seen(index, "a")

    assert ask(settings, watch) == {"round0"}


USER = """
import sys
from datetime import datetime, timezone
from pathlib import Path
import numpy as np
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import Document, FileChunks, NewChunk
from worker.stores.index import SearchIndex

def vectors(count):
    return np.ones((count, 8), np.float32)

chunks = [NewChunk(text="some words " * 50, start_line=1, end_line=1)] * 5
files = [FileChunks(path=f"{n}.py", language=None, hash="", size=0, changed_ns=0, chunks=chunks, vectors=vectors(5))
         for n in range(50)]
note = Document(kind="note", name="n", created=datetime.now(timezone.utc), chunks=chunks[:1], vectors=vectors(1))

async def use():
    async with SearchIndex.open(Path(sys.argv[1]) / "index", "made up", 8) as index:
        await index.replace_files("1", files)
        await index.replace_documents([note])
        await index.files_of("1")
        await index.totals("1")
        assert await index.passages(await index.search_text("some words", limit=10))
        assert await index.search_vector(vectors(1)[0], limit=10)
        await index.is_scattered()
        await index.remove_files("1", ["0.py"])
        await index.optimize()
        await index.remove_repository("1")

put_in_force(Settings(data_dir=sys.argv[1], blocking="error"))
run_async_in_new_loop(use)
"""


def test_nothing_blocks_the_loop(settings: Settings) -> None:
    """Whatever would sleep, read or write in a coroutine raises, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", USER, str(settings.data_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)


THREADS = """
import contextlib
import os
from pathlib import Path
from worker.stores.lance import load_lancedb

load_lancedb()
for task in Path("/proc/self/task").glob("*"):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has ended meanwhile
        print(os.getpriority(os.PRIO_PROCESS, int(task.name)), (task / "comm").read_text().split()[0])
print(os.getpriority(os.PRIO_PROCESS, 0), "main")
"""


def test_what_computes_a_search_lets_the_loop_go_first() -> None:
    """Its threads are nicer than that of the process that asks, which is as nice as ever; so is all off Linux."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    nice = {int(number) for number, name in map(str.split, done.stdout.splitlines()) if "lance" in name}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == ({min(own + 10, 19)} if sys.platform == "linux" else set())
    assert f"{own} main" in done.stdout
