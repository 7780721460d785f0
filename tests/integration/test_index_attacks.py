"""The search index and its sync under attack: two who store the same, full disks, killed upkeep, lost folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lancedb.index import IvfSq

from tests.conftest import forget_environment
from tests.integration.test_repository_sync import add, code, indexed, record, stored, sync
from tests.integration.test_search_index import DIMENSIONS, ask, document, file, fill, texts_of
from tests.integration.test_upkeep import files as files_of_vectors
from tests.support.git_trees import write
from tests.support.waiting import wait_until
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError, Fatal, Unchanged, WorkerError
from worker.recall import repository_sync
from worker.recall.indexing import rebuild_index
from worker.recall.reading import read_files
from worker.recall.recall import recall
from worker.recall.repositories import name_of, remove_repository
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.index import IndexFailed, SearchIndex
from worker.stores.settings import StoreSettings


def both(settings: Settings, *writes: Any) -> list[dict[str, Any]]:
    """What is stored after these, each by one who has the index open by itself, at once."""

    async def asked() -> list[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(
                    SearchIndex.open(StoreSettings.in_force().index_dir, "made up", DIMENSIONS)
                )
                for _ in writes
            ]
            for number in range(8):
                await asyncio.gather(*(write(index, number) for write, index in zip(writes, opened, strict=True)))
            return await opened[0]._table.query().select(["id", "path", "text", "chunks", "kind"]).to_list()

    return run_async_in_new_loop(asked)


def test_a_file_that_two_store_at_once_is_stored_once_and_whole(settings: Settings) -> None:
    """As one of the two has it: an attempt that lost its lease may still be at work beside the next one."""
    rows = both(
        settings,
        lambda index, number: index.replace_files("1", [file(f"{number}.py", *["long"] * 5)]),
        lambda index, number: index.replace_files("1", [file(f"{number}.py", *["short"] * 2)]),
    )
    assert max(Counter(row["id"] for row in rows).values()) == 1
    for number in range(8):
        texts = [row["text"] for row in rows if row["path"] == f"{number}.py" and row["kind"] == "code"]
        [chunks] = [row["chunks"] for row in rows if row["path"] == f"{number}.py" and row["kind"] == "file"]
        assert texts in (["long"] * 5, ["short"] * 2)
        assert len(texts) == chunks


def test_a_note_that_two_store_at_once_is_stored_once_and_whole(settings: Settings) -> None:
    """Nobody has a lease for a note."""
    rows = both(
        settings,
        lambda index, number: index.replace_documents([document("note", str(number), *["long"] * 4)]),
        lambda index, number: index.replace_documents([document("note", str(number), "short")]),
    )
    found = Counter((row["path"], row["text"]) for row in rows)
    assert len(found) == 8
    assert all(count == (4 if text == "long" else 1) for (_, text), count in found.items())


def test_what_little_a_filter_leaves_is_found_wherever_it_lies(settings: Settings) -> None:
    """In parts of the index of vectors that are far from the question too, of which a large index has many."""
    vectors = np.random.default_rng(6).standard_normal((8000, DIMENSIONS)).astype(np.float32)

    async def found(index: SearchIndex) -> set[int]:
        await index.replace_files("large", files_of_vectors(vectors))
        await index.replace_files("small", files_of_vectors(np.concatenate([vectors[:200], -vectors[:200]])))
        config: Any = IvfSq(distance_type="cosine", num_partitions=100)
        await index._table.create_index("vector", config=config, name="vector_idx")
        answers = [await index.search_vector(one, limit=400, repository="small") for one in vectors[:5]]
        await index.remove_repository("large")
        await index.optimize()
        answers += [await index.search_vector(one, limit=400) for one in vectors[:5]]
        return set(map(len, answers))

    assert ask(settings, found) == {400}


def test_a_table_without_indexes_gets_them_while_others_write(settings: Settings) -> None:
    """As one that was made before there were any, or by a process that was killed before it made them."""

    async def forget(index: SearchIndex) -> None:
        for one in await index._table.list_indices():
            await index._table.drop_index(one.name)

    fill(settings, "1", *(file(f"{number}.py", "one") for number in range(20)))
    ask(settings, forget)

    async def opened_while_written(index: SearchIndex) -> set[str]:
        async def open_and_look() -> set[str]:
            async with SearchIndex.open(StoreSettings.in_force().index_dir, "made up", DIMENSIONS) as other:
                return {one.name for one in await other._table.list_indices()}

        writes = [index.replace_files("1", [file(f"{number}.py", "two")]) for number in range(6)]
        found = await asyncio.gather(*(open_and_look() for _ in range(3)), index.optimize(), *writes)
        assert all(one == {"id_idx", "words_idx"} for one in found[:3])
        return {passage.id for passage in await index.search_text("two", limit=100)}

    assert len(ask(settings, opened_while_written)) == 6


@contextlib.contextmanager
def full_disk(largest: int = 3000) -> Iterator[None]:
    """Files can grow to so many bytes, and no further."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_full_disk_is_one_line_and_loses_nothing(settings: Settings) -> None:
    """What was stored is still found, and what could not be stored can be as soon as there is room."""
    before = [file(f"{number}.py", *["words " * 20] * 20) for number in range(20)]
    fill(settings, "1", *before)

    async def attempts(index: SearchIndex) -> None:
        with full_disk():
            for write_ in (
                lambda: index.replace_files("1", [file(f"{number}.py", *["other"] * 40) for number in range(20)]),
                lambda: index.replace_documents([document("note", str(n), *["other"] * 40) for n in range(20)]),
                index.optimize,
            ):
                with pytest.raises(IndexFailed, match=r"^the search index in .* cannot be written: ") as raised:
                    await write_()
                assert "\n" not in str(raised.value)
                assert ".rs:" not in str(raised.value)
            assert len(await index.search_text("words", limit=1000)) == 400
            assert await index.search_text("other", limit=1000) == []

    ask(settings, attempts)
    fill(settings, "1", file("0.py", "other"))
    assert texts_of(settings, "0.py") == ["other"]
    assert ask(settings, lambda index: index.optimize())


@pytest.mark.parametrize(("room", "first"), [(3000, "WORKER_DATABASE_URL"), (60_000, "the search index")])
def test_a_sync_on_a_full_disk_fails_in_one_line_and_goes_on_when_there_is_room(
    tree: Path, room: int, first: str
) -> None:
    """Neither the index nor the record of the repository is lost."""
    sync()
    write(tree, {f"many/{number}.py": code(f"name{number}") * 20 for number in range(200)})
    with full_disk(room), pytest.raises(WorkerError, match=f"^{first}.* cannot be (opened|written): ") as raised:
        sync()
    assert "\n" not in str(raised.value)
    assert len(indexed()) == 3
    assert sync().stored == 200


@pytest.fixture
def tree(tmp_path: Path, settings: Settings) -> Path:
    """A repository of three files, added as `tree`."""
    folder = write(tmp_path / "tree", {"a.py": code("first"), "sub/b.py": code("second"), "c.md": "# Third\n\nText.\n"})
    add(folder)
    return folder


def test_an_index_whose_lock_cannot_be_made_is_one_line(settings: Settings) -> None:
    """Upkeep fails, and answers go on."""
    fill(settings, "1", file("a.py", "one"))
    (StoreSettings.in_force().index_dir / "upkeep.lock").mkdir()
    with pytest.raises(IndexFailed, match="cannot be written"):
        ask(settings, lambda index: index.optimize())
    assert texts_of(settings, "a.py") == ["one"]


def test_damaged_files_are_one_line(tree: Path, settings: Settings) -> None:
    """For a sync as for a question."""
    sync()
    for one in StoreSettings.in_force().index_dir.glob("*.lance/data/*"):
        one.write_bytes(b"\0" * 300)
    with pytest.raises(IndexFailed, match="^the search index in .* cannot be read: ") as raised:
        sync()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("moment", ["while it is scanned", "while it is read"])
def test_a_folder_that_vanishes_meanwhile_keeps_what_is_stored(
    tree: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive that goes away says of all its files that they are not there."""
    sync()
    (tree / "a.py").write_text(code("changed"))
    elsewhere = tree.with_name("elsewhere")
    scandir = os.scandir

    def vanishing(path: bytes) -> Any:
        entries = list(scandir(path))
        if not path.endswith(b"sub/") and tree.exists():
            tree.rename(elsewhere)
        return contextlib.nullcontext(entries)

    def read_nothing(*given: Any) -> Any:
        tree.rename(elsewhere)
        return read_files(*given)

    if moment == "while it is scanned":
        monkeypatch.setattr(os, "scandir", vanishing)
    else:
        monkeypatch.setattr(repository_sync, "read_files", read_nothing)
    with pytest.raises(Fatal, match="is not there"):
        sync()
    monkeypatch.undo()
    assert sorted(indexed()) == ["a.py", "c.md", "sub/b.py"]
    elsewhere.rename(tree)
    assert sync().stored == 1


def test_a_folder_in_it_that_vanishes_meanwhile_is_no_failure(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are gone like any others."""
    sync()
    scandir = os.scandir

    def vanishing(path: Any) -> Any:
        if path == os.fsencode(tree / "sub") + b"/":
            (tree / "sub").rename(tree.with_name("elsewhere"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    synced = sync()
    assert (synced.failed, synced.removed) == ((), 1)


@pytest.mark.parametrize("name", ["\ud800", "/half\udcff", "nul\0", "/nul\0", "/" + "x" * 300, "/" + "x/" * 3000])
def test_a_name_that_can_be_none_is_fatal(settings: Settings, name: str) -> None:
    """At once: it is as bad the next time."""
    assert run_async_in_new_loop(name_of(name)) == name
    with pytest.raises(Fatal, match="no repository is called|is not there|is not a valid path"):
        sync(name)
    with pytest.raises(ConfigurationError):
        add(Path(name))
    with pytest.raises(ConfigurationError, match="no repository"):
        run_async_in_new_loop(recall("x", repository=name))


def test_a_line_of_50_megabytes_is_found_and_harms_no_other_file(tree: Path, settings: Settings) -> None:
    """Where the limit lets it in: its hits show what was found in it, and say truly that it has not changed."""
    put_in_force(RecallSettings(sync_max_file_bytes=2**26))
    line = "x" * 30_000_000 + " zebra " + "y" * 20_000_000
    write(tree, {"line.txt": line, "line.js": "f(" + "a," * 300_000 + "giraffe)" + "," * 30_000})
    assert sync().failed == ()
    assert len(indexed()) == 5
    assert stored()["line.txt"].chunks > 30_000
    answers = {word: run_async_in_new_loop(recall(word)).hits[0] for word in ("zebra", "giraffe", "second")}
    assert {word: hit.path for word, hit in answers.items()} == {
        "zebra": "line.txt",
        "giraffe": "line.js",
        "second": "sub/b.py",
    }
    assert all(word in hit.snippet for word, hit in answers.items())
    assert {word: hit.changed for word, hit in answers.items()} == {"zebra": None, "giraffe": False, "second": False}
    with pytest.raises(Unchanged):
        sync()


MANY = 5_000


def test_thousands_of_small_files_are_synced_and_then_left_alone(tree: Path) -> None:
    """Each of a line."""
    put_in_force(RecallSettings(recall_timeout=timedelta(minutes=5)))
    write(tree, {f"{number // 500}/{number}.py": f"value_{number} = 1\n" for number in range(MANY)})
    assert sync().stored == MANY + 3
    with pytest.raises(Unchanged):
        sync()
    assert record()["chunks"] == MANY + 3
    assert run_async_in_new_loop(recall("value_4321")).hits[0].path == "8/4321.py"


OPTIMIZER = """
import sys
from pathlib import Path
from worker.bridge import run_async_in_new_loop
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.index import SearchIndex

async def optimize():
    async with SearchIndex.open(Path(sys.argv[1]) / "index", "made up", int(sys.argv[2])) as index:
        print("ready", flush=True)
        assert await index.optimize()

put_in_force(Settings(data_dir=sys.argv[1]))
run_async_in_new_loop(optimize)
"""


@pytest.mark.parametrize("moment", ["data/*", "_indices/*/*"])
def test_upkeep_that_is_killed_loses_nothing_and_is_done_by_the_next(settings: Settings, moment: str) -> None:
    """Killed as soon as it has written its first file of a kind; nobody waits for its lock."""
    vectors = np.random.default_rng(6).standard_normal((24_000, DIMENSIONS)).astype(np.float32)
    for start in range(0, 24_000, 4000):
        fill(settings, "1", *files_of_vectors(vectors[start : start + 4000], start))
    ask(settings, lambda index: index.remove_files("1", ["0.py"]))

    def written() -> set[Path]:
        return set(StoreSettings.in_force().index_dir.glob(f"chunks.lance/{moment}"))

    before = written()
    words = [sys.executable, "-c", OPTIMIZER, str(settings.data_dir), str(DIMENSIONS)]
    environment = forget_environment(dict(os.environ))
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: written() - before or process.poll() is not None)
        process.send_signal(signal.SIGKILL)

    async def look(index: SearchIndex) -> list[int]:
        found = await index.search_text("23999", limit=10)
        near = await index.search_vector(vectors[23_999], limit=10)
        return [len(await index.files_of("1")), (await index.totals("1")).chunks, len(found), near[0][0] == found[0][0]]

    whole = [59, 23_600, 1, True]
    assert ask(settings, look) == whole
    assert ask(settings, lambda index: index.optimize())
    assert not ask(settings, lambda index: index.is_scattered())
    assert ask(settings, look) == whole


def test_questions_are_answered_while_the_index_is_made_anew(tree: Path, settings: Settings) -> None:
    """From what it was, until it is another."""
    write(tree, {f"many/{number}.py": code(f"name{number}") for number in range(300)})
    sync()

    async def asked() -> tuple[int, set[int]]:
        rebuilding = asyncio.create_task(rebuild_index())
        found = set()
        while not rebuilding.done():
            found.add(len((await recall("name7", limit=100)).hits))
        return await rebuilding, found | {len((await recall("name7", limit=100)).hits)}

    assert run_async_in_new_loop(asked) == (303, {100})


def test_a_repository_that_is_removed_while_it_is_synced_is_forgotten(tree: Path, settings: Settings) -> None:
    """Also by one who did not wait for the sync to end: its lease may have been lost."""
    put_in_force(RecallSettings(sync_batch=1))
    write(tree, {f"many/{number}.py": code(f"name{number}") for number in range(20)})

    async def removed_meanwhile() -> None:
        tasks: list[asyncio.Task[None]] = []

        def told(*_: object) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(remove_repository("tree")))

        try:
            await repository_sync.sync_repository("tree", progress=told)
        finally:
            await asyncio.gather(*tasks)

    with pytest.raises(Fatal, match="'tree' was removed while it was synced"):
        run_async_in_new_loop(removed_meanwhile)
    assert stored() == {}
