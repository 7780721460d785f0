"""Syncing a repository: real files, a real index, the embedded model, and processes that are killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import forget_environment
from tests.support.git_trees import write
from tests.support.searching import found_by_text
from worker.bridge import run_async_in_new_loop
from worker.errors import ConfigurationError, Fatal, NoContentFound, RetryLater, Unchanged
from worker.ground.json_values import to_json
from worker.models.embedder import EmbeddedEmbedder, Embedder, Vectors
from worker.recall import reading, repository_sync
from worker.recall.chunking import cut
from worker.recall.repositories import RepositoryAnswer, add_repository, describe_repository, name_of, remove_repository
from worker.recall.repository_sync import Synced, sync_repository
from worker.recall.scanning import Found
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import FileState
from worker.stores.index import search_index
from worker.stores.repositories import repository_folders, repository_store

FUNCTION = "def {name}():\n    return {name!r}\n"


def code(name: str) -> str:
    return FUNCTION.format(name=name)


@pytest.fixture
def tree(tmp_path: Path, settings: Settings) -> Path:
    """A repository of three files, added as `tree`."""
    folder = write(tmp_path / "tree", {"a.py": code("first"), "sub/b.py": code("second"), "c.md": "# Third\n\nText.\n"})
    add(folder)
    return folder


def add(folder: Path, name: str | None = None, **globs: Sequence[str]) -> str:
    return run_async_in_new_loop(add_repository(folder, name, **globs)).name


def sync(name: str = "tree", told: list[tuple[int, int, str]] | None = None) -> Synced:
    progress = None if told is None else lambda *said: told.append(said)
    return run_async_in_new_loop(sync_repository(name, progress=progress))


def sync_if_needed(name: str = "tree") -> None:
    with contextlib.suppress(NoContentFound):
        sync(name)


def stored(name: str = "tree") -> dict[str, FileState]:
    async def ask() -> dict[str, FileState]:
        return await (await search_index()).files_of(name)

    return run_async_in_new_loop(ask)


def indexed(name: str = "tree") -> dict[str, str]:
    """The files that have chunks, with the hashes of their contents."""
    return {path: state.hash for path, state in stored(name).items() if state.left_out is None}


def record(name: str = "tree") -> dict[str, Any]:
    async def ask() -> RepositoryAnswer:
        found = await (await repository_store()).get(name)
        assert found is not None
        return await describe_repository(found)

    described: dict[str, Any] = to_json(run_async_in_new_loop(ask))
    return described


def found_by_word(word: str, name: str = "tree") -> list[str]:
    async def ask() -> list[str]:
        found = await found_by_text(await search_index(), word, limit=10, repository=name)
        return [one.path for one in found]

    return run_async_in_new_loop(ask)


def test_a_first_sync_stores_every_file(tree: Path) -> None:
    """What is in them is found, and the result says how much there is."""
    synced = sync()
    assert (synced.stored, synced.removed, synced.failed) == (3, 0, ())
    assert synced.describe() == "3 files stored in 3 chunks, 0 removed; now 3 files, 3 chunks"
    assert found_by_word("second") == ["sub/b.py"]


def test_a_chunk_says_where_it_is_from(tree: Path) -> None:
    """Path, lines, language, symbol and the hash of the file's content."""
    sync()

    async def ask() -> Any:
        [found] = await found_by_text(await search_index(), "second", limit=1, repository="tree")
        return found

    passage = run_async_in_new_loop(ask)
    content = (tree / "sub/b.py").read_bytes()
    assert (passage.path, passage.start_line, passage.end_line) == ("sub/b.py", 1, 2)
    assert (passage.language, passage.symbol, passage.text) == ("python", "second", content.decode())
    assert passage.file_hash == stored()["sub/b.py"].hash


def test_nothing_to_do_is_unchanged_and_reads_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read once, as long as it stays as it is."""
    sync()
    monkeypatch.setattr(reading, "_content", lambda *_: pytest.fail("a file was read again"))
    for _ in range(2):
        with pytest.raises(Unchanged, match="unchanged"):
            sync()
    assert record()["sync"]["state"] == "skipped"


def test_edits_renames_and_deletions_are_followed(tree: Path) -> None:
    """What was there is found no more, and what did not change is left alone."""
    sync()
    before = stored()
    (tree / "a.py").write_text(code("changed"))
    (tree / "sub/b.py").rename(tree / "sub/renamed.py")
    (tree / "c.md").unlink()
    (tree / "d.py").write_text(code("added"))
    synced = sync()
    assert (synced.stored, synced.removed) == (3, 2)
    assert sorted(stored()) == ["a.py", "d.py", "sub/renamed.py"]
    assert stored()["sub/renamed.py"].hash == before["sub/b.py"].hash
    assert [found_by_word(word) for word in ("first", "Third")] == [[], []]
    assert found_by_word("second") == ["sub/renamed.py"]


def test_an_edit_that_keeps_size_and_time_is_seen(tree: Path) -> None:
    """A tool may set a file's time back, but not the time of that."""
    sync()
    before = (tree / "a.py").stat()
    (tree / "a.py").write_text(code("fjrst"))
    os.utime(tree / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sync().stored == 1
    assert found_by_word("fjrst") == ["a.py"]


def test_a_touched_file_is_not_stored_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once more, and not after that."""
    sync()
    os.utime(tree / "a.py")
    with pytest.raises(Unchanged):
        sync()
    monkeypatch.setattr(reading, "_content", lambda *_: pytest.fail("a file was read again"))
    with pytest.raises(Unchanged):
        sync()


def test_a_file_that_changes_while_it_is_read_is_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read may be half of what it is now."""
    read = reading._cut

    def changing(path: str, *rest: Any) -> Any:
        if path == "a.py":
            (tree / "a.py").write_text(code("later"))
        return read(path, *rest)

    monkeypatch.setattr(reading, "_cut", changing)
    sync()
    monkeypatch.undo()
    sync_if_needed()
    assert found_by_word("later") == ["a.py"]
    assert found_by_word("first") == []


def test_other_globs_change_what_is_stored(tree: Path) -> None:
    """A repository that is added once more keeps what is still wanted."""
    sync()
    add(tree, exclude=["*.md"])
    assert sync().describe() == "0 files stored in 0 chunks, 1 removed; now 2 files, 2 chunks"
    add(tree, include=["*.md"])
    assert sorted(indexed()) == ["a.py", "sub/b.py"]
    sync()
    assert sorted(indexed()) == ["c.md"]


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"", b" \n"], ids=["binary", "not UTF-8", "empty", "blank"])
def test_what_can_be_indexed_no_more_is_no_unchanged_repository(tree: Path, content: bytes) -> None:
    """Its chunks are gone: that is told, once."""
    sync()
    (tree / "a.py").write_bytes(content)
    assert "left out: 1" in sync().describe()
    assert sorted(indexed()) == ["c.md", "sub/b.py"]
    with pytest.raises(Unchanged):
        sync()


def test_what_vanishes_before_it_is_read_is_told_as_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when the folder was listed."""
    sync()
    (tree / "a.py").write_text(code("other"))
    read = reading.read_files

    def late(*given: Any) -> Any:
        (tree / "a.py").unlink()
        return read(*given)

    monkeypatch.setattr(repository_sync, "read_files", late)
    assert sync().removed == 1
    assert sorted(indexed()) == ["c.md", "sub/b.py"]


def test_what_is_in_a_folder_that_cannot_be_listed_stays(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows that it is gone: a drive may come back."""
    sync()
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"sub/"):
            raise OSError(5, "Input/output error")
        return scandir(path)

    with monkeypatch.context() as away:
        away.setattr(os, "scandir", refuse)
        synced = sync()
    assert (synced.removed, [(one.path, one.reason) for one in synced.failed]) == (0, [("sub", "Input/output error")])
    assert sorted(indexed()) == ["a.py", "c.md", "sub/b.py"]
    sync_if_needed()
    assert sorted(indexed()) == ["a.py", "c.md", "sub/b.py"]
    assert record()["errors"] == 0


def test_files_that_are_not_read_count_nothing_in_a_batch(tree: Path, settings: Settings) -> None:
    """However large they are: videos do not make a batch of each."""
    put_in_force(RecallSettings(sync_max_file_bytes=1000))
    write(tree, {f"video{number}": b"" for number in range(50)})
    for number in range(50):
        os.truncate(tree / f"video{number}", 10 * 2**20)
    told: list[tuple[int, int, str]] = []
    sync(told=told)
    assert [done for done, *_ in told] == [53]


def test_what_is_left_out_is_counted_with_the_reason(tree: Path, settings: Settings) -> None:
    """In the result, in the record, and without being read again."""
    put_in_force(RecallSettings(sync_max_file_bytes=1000))
    write(
        tree, {"binary": b"a\0b", "latin": "é".encode("latin-1"), "empty": b"", "blank": " \n\n", "large": "x" * 1001}
    )
    (tree / "link").symlink_to("a.py")
    synced = sync()
    reasons = {"empty": 2, "binary": 1, "not UTF-8": 1, "symbolic link": 1, "too large": 1}
    assert record()["left_out"] == reasons
    assert synced.describe().endswith("left out: 2 empty, 1 binary, 1 not UTF-8, 1 symbolic link, 1 too large")
    assert sorted(indexed()) == ["a.py", "c.md", "sub/b.py"]
    with pytest.raises(Unchanged):
        sync()
    put_in_force(RecallSettings())
    assert sync().stored == 1


def test_a_file_that_fails_costs_only_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with the reason, is not found any more, and is tried again."""
    sync()
    (tree / "a.py").write_text(code("unreadable"))
    (tree / "c.md").write_text("# Fourth\n")
    open_file = os.open

    def refuse(path: bytes, *rest: Any) -> int:
        if path.endswith(b"a.py"):
            raise PermissionError(13, "Permission denied")
        return open_file(path, *rest)

    monkeypatch.setattr(os, "open", refuse)  # root may open any file
    for _ in range(2):
        synced = sync()
        assert synced.describe().endswith("1 failed: 'a.py' (Permission denied)")
        assert record()["errors"] == 1
        assert sorted(indexed()) == ["c.md", "sub/b.py"]
    monkeypatch.undo()
    assert sync().failed == ()
    assert (record()["errors"], found_by_word("unreadable")) == (0, ["a.py"])


def test_a_file_that_breaks_the_cutter_costs_only_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a parser does with it."""

    def fragile(text: str, language: str | None) -> Any:
        if "first" in text:
            raise RecursionError("too deep")
        return cut(text, language)

    monkeypatch.setattr(reading, "cut", fragile)
    assert [one.path for one in sync().failed] == ["a.py"]
    assert sorted(indexed()) == ["c.md", "sub/b.py"]


class Choosy(EmbeddedEmbedder):
    """An embedder that refuses some texts."""

    def __init__(self, refused: str) -> None:
        self.refused = refused

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if any(self.refused in text for text in texts):
            raise Fatal("the text is refused")
        return await super().embed(texts)


def use(monkeypatch: pytest.MonkeyPatch, model: Embedder) -> None:
    async def chosen() -> Embedder:
        return model

    monkeypatch.setattr(repository_sync, "embedder", chosen)


def test_a_text_that_the_embedder_refuses_costs_only_its_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch are stored."""
    use(monkeypatch, Choosy("first"))
    assert [(one.path, one.reason) for one in sync().failed] == [("a.py", "the text is refused")]
    assert sorted(indexed()) == ["c.md", "sub/b.py"]


def test_a_refused_text_costs_only_its_file_also_when_it_is_alone(
    tree: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a batch of its own, and in every further sync."""
    put_in_force(RecallSettings(sync_batch=1))
    use(monkeypatch, Choosy("first"))
    for _ in range(2):
        assert [(one.path, one.reason) for one in sync().failed] == [("a.py", "the text is refused")]
        assert sorted(indexed()) == ["c.md", "sub/b.py"]


def test_an_embedder_that_refuses_everything_fails_the_sync(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the files that are wrong."""
    use(monkeypatch, Choosy(""))
    with pytest.raises(Fatal, match="refused"):
        sync()
    assert (record()["sync"]["state"], record()["sync"]["text"]) == ("failed", "the text is refused")


class Busy(EmbeddedEmbedder):
    """An embedder that asks to come back later."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise RetryLater(30, "the model is busy")


def test_a_sync_that_is_told_to_come_later_is_snoozed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record gives the reason, and calls it no failure."""
    use(monkeypatch, Busy())
    with pytest.raises(RetryLater):
        sync()
    assert (record()["sync"]["state"], record()["sync"]["text"]) == ("snoozed", "the model is busy")


@pytest.mark.parametrize("kind", ["gone", "file"])
def test_a_folder_that_is_none_is_fatal(tree: Path, kind: str) -> None:
    """What is stored of it stays: a disk may come back."""
    sync()
    tree.rename(tree.with_name("elsewhere"))
    if kind == "file":
        tree.write_text("")
    with pytest.raises(Fatal, match="is not there" if kind == "gone" else "is not a folder"):
        sync()
    assert len(indexed()) == 3


def test_a_folder_that_may_not_be_read_is_fatal(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told apart from one that is not there."""

    def refuse(_: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # root may list any folder
    with pytest.raises(Fatal, match="may not be read: Permission denied"):
        sync()


def test_a_path_that_may_not_be_looked_at_is_fatal(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would change nothing; there is no such repository yet."""
    put_in_force(RecallSettings(repository_roots=(tmp_path,)))
    closed, stat = tmp_path / "closed", Path.stat

    def refuse(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refuse)  # root may look at any
    with pytest.raises(Fatal, match="may not be read: Permission denied"):
        sync(str(closed))


def test_a_file_of_blanks_that_becomes_empty_is_stored_as_empty(tree: Path, settings: Settings) -> None:
    """Both are left out as empty; the stored size is that of the present file."""
    (tree / "blank.py").write_text(" \n")
    sync()
    (tree / "blank.py").write_text("")
    sync()
    known = stored()
    assert (known["blank.py"].size, known["blank.py"].left_out) == (0, "empty")


def test_a_name_that_is_not_known_is_fatal(settings: Settings) -> None:
    """With the command that adds a repository."""
    with pytest.raises(Fatal, match="worker repositories add"):
        sync("nobody")


def test_nothing_to_index_is_no_content(tree: Path, tmp_path: Path) -> None:
    """Told with what was left out, and what was stored before is removed."""
    sync()
    for file in ("a.py", "sub/b.py", "c.md"):
        (tree / file).unlink()
    (tree / "binary").write_bytes(b"\0")
    for _ in range(2):
        with pytest.raises(NoContentFound, match="git would see 1 file, 1 of them wanted; left out: 1 binary"):
            sync()
    assert indexed() == {}


def test_a_path_is_added_as_it_is_called(tmp_path: Path, settings: Settings) -> None:
    """Twice the same, a name that is taken gets another, and one that is unfit too."""
    put_in_force(RecallSettings(repository_roots=(tmp_path,)))
    folders = [tmp_path / "x" / "code", tmp_path / "y" / "code", tmp_path / "with space"]
    for folder in folders:
        write(folder, {"a.py": "1"})
    names = [run_async_in_new_loop(name_of(str(folder))) for folder in (*folders, *folders)]
    assert names[:3] == names[3:]
    assert names[0] == "code"
    assert names[1].startswith("code-")
    assert names[2].startswith("with-space-")
    assert run_async_in_new_loop(repository_folders(names)) == dict(zip(names, folders, strict=False))


@pytest.mark.parametrize("given", ["nobody", "/nowhere", "a/relative/path"])
def test_what_is_neither_a_name_nor_a_folder_stays_what_it_is(settings: Settings, given: str) -> None:
    """The sync then says what is wrong with it."""
    assert run_async_in_new_loop(name_of(given)) == given
    with pytest.raises(Fatal, match=f"no repository is called '?{given}.*worker repositories add"):
        sync(given)


def test_only_folders_below_the_roots_are_taken_from_a_message(tree: Path, tmp_path: Path, settings: Settings) -> None:
    """A path outside of them, by a link or by `..` too, is refused alike whether it exists or not."""
    outside = write(tmp_path / "outside", {"secret.txt": "the key is under the mat\n"})
    root = write(tmp_path / "root", {"ours/a.py": "1"})
    (root / "link").symlink_to(outside)
    given = [str(outside), str(tmp_path / "nowhere"), str(root / "link"), f"{root}/../outside", "/", "/etc"]
    for roots in ((), (root,)):
        put_in_force(RecallSettings(repository_roots=roots))
        for path in given:
            assert run_async_in_new_loop(name_of(path)) == path
            with pytest.raises(
                Fatal, match="worker repositories add`, or name a folder above it in WORKER_REPOSITORY_"
            ):
                sync(path)
    assert run_async_in_new_loop(name_of(str(root / "ours"))) == "ours"
    with pytest.raises(Fatal, match="is not there"):
        sync(str(root / "gone"))
    assert run_async_in_new_loop(name_of(str(tree))) == "tree"


def test_a_repository_that_became_a_link_elsewhere_is_not_followed(tree: Path, tmp_path: Path) -> None:
    """What was added was another folder."""
    sync()
    outside = write(tmp_path / "outside", {"secret.txt": "the key is under the mat\n"})
    tree.rename(tmp_path / "away")
    tree.symlink_to(outside)
    with pytest.raises(Fatal, match="leads to .*outside now"):
        sync()


def test_a_name_is_of_one_folder(tree: Path, tmp_path: Path) -> None:
    """Another cannot take it, and an unfit one is refused."""
    other = write(tmp_path / "other", {"a.py": "1"})
    with pytest.raises(ConfigurationError, match="another repository is called 'tree'"):
        add(other, "tree")
    with pytest.raises(ConfigurationError, match="not a valid name for a repository"):
        add(other, "../x")
    for path in ("nowhere", "tree/a.py"):
        with pytest.raises(ConfigurationError, match="name a folder"):
            add(tmp_path / path)


def test_a_removed_repository_is_forgotten_with_all_that_is_stored(tree: Path) -> None:
    """Its files stay."""
    sync()
    run_async_in_new_loop(remove_repository("tree"))
    assert stored() == {}
    assert (tree / "a.py").exists()
    with pytest.raises(ConfigurationError, match="worker repositories list"):
        run_async_in_new_loop(remove_repository("tree"))


def test_two_repositories_do_not_know_each_other(tree: Path, tmp_path: Path) -> None:
    """The same paths in each, and other chunks."""
    other = write(tmp_path / "other", {"a.py": code("elsewhere")})
    add(other)
    sync()
    sync("other")
    (other / "a.py").unlink()
    write(other, {"b.py": code("elsewhere")})
    sync("other")
    assert (sorted(indexed("other")), len(indexed())) == (["b.py"], 3)


def in_batches_of(settings: Settings, size: int) -> None:
    put_in_force(RecallSettings(sync_batch=size))


def test_progress_is_told_after_each_batch(tree: Path, settings: Settings) -> None:
    """Files done of those wanted, and in the record at the end all of them."""
    in_batches_of(settings, 1)
    told: list[tuple[int, int, str]] = []
    sync(told=told)
    assert [(done, wanted) for done, wanted, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1][2] == "3 chunks stored"
    found = record()
    assert {key: found["sync"][key] for key in ("state", "scanned", "matching", "done")} == {
        "state": "completed",
        "scanned": 3,
        "matching": 3,
        "done": 3,
    }


def test_the_totals_are_what_is_stored_at_any_moment(tree: Path, settings: Settings) -> None:
    """Asked after each batch, from another loop as another process would."""
    in_batches_of(settings, 1)
    seen = []

    async def watch() -> None:
        index = await search_index()
        loop = asyncio.get_running_loop()

        def told(*_: object) -> None:
            seen.append(loop.create_task(index.totals("tree")))

        await sync_repository("tree", progress=told)
        for number, totals in enumerate([await task for task in seen], start=1):
            assert number <= totals.files <= 3
            assert totals.chunks == totals.files

    run_async_in_new_loop(watch)
    assert len(seen) == 3


async def cancelled_after(batches: int) -> None:
    """A sync that is cancelled when so many batches are stored."""
    task: asyncio.Task[Synced] | None = None
    left = batches

    def told(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0 and task is not None:
            task.cancel()

    task = asyncio.create_task(sync_repository("tree", progress=told))
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_sync_goes_on_where_it_was(tree: Path, settings: Settings) -> None:
    """What was stored is not stored again."""
    write(tree, {f"many/{number}.py": code(f"name{number}") for number in range(40)})
    in_batches_of(settings, 2)
    run_async_in_new_loop(cancelled_after(5))
    before = len(indexed())
    assert 10 <= before < 43
    assert record()["sync"]["state"] == "cancelled"
    assert sync().stored == 43 - before
    assert len(indexed()) == 43


KILLED = """
import os, sys
from worker.bridge import run_async_in_new_loop
from worker.recall.repository_sync import sync_repository
run_async_in_new_loop(sync_repository("tree", progress=lambda *said: print("stored", flush=True)))
"""


def killed_in_the_middle(settings: Settings, batches: int) -> None:
    """A sync in a process of its own, killed when so many batches are stored."""
    own = {"WORKER_DATA_DIR": str(settings.data_dir), "WORKER_SYNC_BATCH": "1"}
    environment = forget_environment(dict(os.environ)) | own
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(batches):
            assert process.stdout.readline() == b"stored\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("batches", [1, 7, 20])
def test_a_killed_sync_goes_on_where_it_was(tree: Path, settings: Settings, batches: int) -> None:
    """At no moment is half of a file stored, and the next sync does only what is left."""
    large = "\n\n".join(code(f"part{number}") * 20 for number in range(20))
    write(tree, {f"many/{number}.py": large.replace("part", f"x{number}part") for number in range(60)})
    whole = 63
    killed_in_the_middle(settings, batches)
    before = indexed()
    assert batches <= len(before) < whole
    assert record()["chunks"] == sum(state.chunks for state in stored().values())
    assert sync().stored == whole - len(before)
    assert len(indexed()) == whole
    with pytest.raises(Unchanged):
        sync()


def test_the_loop_is_never_blocked(tree: Path, settings: Settings) -> None:
    """Neither by reading, nor by cutting, embedding or storing."""
    body = "\n\n".join(code(f"part{number}") * 4 for number in range(200))
    write(tree, {f"many/{number}.py": body for number in range(100)})

    async def watched() -> tuple[float, float]:
        longest, began = 0.0, asyncio.get_running_loop().time()
        last = began
        task = asyncio.create_task(sync_repository("tree"))
        while not task.done():
            await asyncio.wait([task], timeout=0.005)
            now = asyncio.get_running_loop().time()
            longest, last = max(longest, now - last), now
        await task
        return longest, last - began

    longest, whole = run_async_in_new_loop(watched)
    assert longest < max(1.0, whole / 8)


def test_memory_holds_a_few_batches_whatever_the_size(
    tree: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many files at a time, or fewer if they are large, and no more batches than can be under way."""
    write(tree, {f"large/{number}.txt": "some words\n" * 90_000 for number in range(9)})
    write(tree, {f"small/{number}.py": code(f"name{number}") for number in range(120)})
    batches: list[tuple[int, int]] = []
    held: list[int] = [0]
    read = reading.read_files

    def reading_files(root: Path, files: Sequence[Found], *rest: Any) -> Any:
        batches.append((len(files), sum(one.stamp.size for one in files)))
        held.append(held[-1] + 1)
        return read(root, files, *rest)

    monkeypatch.setattr(repository_sync, "read_files", reading_files)
    run_async_in_new_loop(sync_repository("tree", progress=lambda *_: held.append(held[-1] - 1)))
    assert all(count <= 100 and size <= 4 * 2**20 for count, size in batches)
    assert (sum(count for count, _ in batches), max(held)) == (132, 3)


def test_hostile_files_cost_only_themselves(tree: Path, settings: Settings) -> None:
    """One line of 50 MB, bytes that are no text, names with newlines and quotes, and a circle of links."""
    write(tree, {"line.txt": "x" * 50_000_000, "noise": os.urandom(5000), "a\n'b'\".py": code("strange")})
    write(tree, {"long.js": "x(" * 400_000})
    (tree / "sub/loop").symlink_to("..")
    sync()
    states = stored()
    assert (states["line.txt"].left_out, states["sub/loop"].left_out) == ("too large", "symbolic link")
    assert states["noise"].left_out in ("binary", "not UTF-8")
    assert found_by_word("strange") == ["a\n'b'\".py"]
    assert states["long.js"].chunks > 400


def test_an_embedder_without_a_vector_for_nothing_is_not_asked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of files that are all left out has no texts."""
    for file in ("a.py", "sub/b.py", "c.md"):
        (tree / file).write_bytes(b"\0")

    class Silent(EmbeddedEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            assert texts
            return np.zeros((len(texts), self.dimensions), np.float32)

    use(monkeypatch, Silent())
    with pytest.raises(NoContentFound):
        sync()
