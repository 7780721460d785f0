"""Any order of edits, renames, deletions, interruptions and syncs: the index ends up as a fresh one of the tree."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.examples import examples
from worker.bridge import run_async_in_new_loop
from worker.errors import NoContentFound
from worker.recall.repositories import add_repository, remove_repository
from worker.recall.repository_sync import sync_repository
from worker.recall.settings import RecallSettings
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.chunks import FileState, Totals
from worker.stores.index import search_index

paths = st.sampled_from(["a.py", "b.md", "sub/a.py", "sub/deep/c.txt", "d\n'\".py"])
contents = st.sampled_from(
    [
        b"",
        b"x = 1\n",
        b"def f():\n    return 1\n",
        b"# Title\n\nText.\n",
        b"\0binary",
        b"\xff",
        b" \n",
        b"words\n" * 900,
    ]
)


class Syncs(RuleBasedStateMachine):
    """A folder that is changed and synced, in batches of one file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sync-machine-"))
        self.tree = self.folder / "tree"
        self.is_synced = False

    @initialize()
    def begin(self) -> None:
        self.tree.mkdir()
        put_in_force(Settings(data_dir=self.folder / "data"))
        put_in_force(RecallSettings(sync_batch=1))
        run_async_in_new_loop(add_repository(self.tree, "tree"))

    @rule(path=paths, content=contents)
    def write(self, path: str, content: bytes) -> None:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.is_synced = False

    @rule(number=st.integers(0, 10))
    def delete(self, number: int) -> None:
        if files := self.files():
            files[number % len(files)].unlink()
            self.is_synced = False

    @rule(number=st.integers(0, 10), to=paths)
    def rename(self, number: int, to: str) -> None:
        if files := self.files():
            (self.tree / to).parent.mkdir(parents=True, exist_ok=True)
            files[number % len(files)].rename(self.tree / to)
            self.is_synced = False

    def files(self) -> list[Path]:
        return sorted(file for file in self.tree.rglob("*") if file.is_file())

    @rule(ignored=st.sampled_from(["", "*.md\n", "sub/\n", "*\n!*.py\n"]))
    def ignore(self, ignored: str) -> None:
        (self.tree / ".gitignore").write_text(ignored)
        self.is_synced = False

    @rule(exclude=st.sampled_from([(), ("*.txt",), ("sub",)]))
    def exclude(self, exclude: tuple[str, ...]) -> None:
        run_async_in_new_loop(add_repository(self.tree, "tree", exclude=exclude))
        self.excluded = exclude
        self.is_synced = False

    @rule(batches=st.integers(0, 3))
    def interrupt(self, batches: int) -> None:
        async def interrupted() -> None:
            left = batches

            def told(*_: object) -> None:
                nonlocal left
                left -= 1
                if left <= 0:
                    task.cancel()

            task = asyncio.create_task(sync_repository("tree", progress=told))
            if batches == 0:
                await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, NoContentFound):
                await task

        run_async_in_new_loop(interrupted)
        self.is_synced = False

    @rule()
    @precondition(lambda self: not self.is_synced)
    def sync(self) -> None:
        with contextlib.suppress(NoContentFound):
            run_async_in_new_loop(sync_repository("tree"))
        self.is_synced = True

    @invariant()
    def the_totals_are_what_is_stored(self) -> None:
        if self.tree.exists():
            states, totals = run_async_in_new_loop(lambda: stored("tree"))
            indexed = [state for state in states.values() if state.left_out is None]
            assert totals.files == len(indexed)
            assert totals.chunks == sum(state.chunks for state in indexed)
            assert sum(totals.left_out.values()) == len(states) - len(indexed)

    @invariant()
    def a_synced_tree_is_stored_as_a_fresh_one(self) -> None:
        if self.is_synced:
            assert run_async_in_new_loop(lambda: contents_of("tree")) == run_async_in_new_loop(self.fresh)

    async def fresh(self) -> dict[str, tuple[object, ...]]:
        await add_repository(self.tree, "fresh", exclude=getattr(self, "excluded", ()))
        with contextlib.suppress(NoContentFound):
            await sync_repository("fresh")
        found = await contents_of("fresh")
        await remove_repository("fresh")
        return found

    def teardown(self) -> None:
        self.sync()
        self.a_synced_tree_is_stored_as_a_fresh_one()
        put_in_force(None)
        shutil.rmtree(self.folder)


async def stored(name: str) -> tuple[dict[str, FileState], Totals]:
    index = await search_index()
    return await index.files_of(name), await index.totals(name)


async def contents_of(name: str) -> dict[str, tuple[object, ...]]:
    """What is stored of each file, but for when it was last changed, with the chunks themselves."""
    states, _ = await stored(name)
    chunks: dict[str, list[tuple[object, ...]]] = {path: [] for path in states}
    table = (await search_index())._table
    columns = ["path", "start_line", "end_line", "language", "symbol", "text", "file_hash", "vector"]
    rows = await table.query().where(f"kind = 'code' AND repository = '{name}'").select(columns).to_list()
    for row in rows:
        chunks[row["path"]].append(tuple(row[column] for column in columns))
    return {
        path: (state.hash, state.size, state.chunks, state.left_out, *sorted(chunks[path], key=str))
        for path, state in states.items()
    }


TestSyncs = Syncs.TestCase
TestSyncs.settings = settings(
    max_examples=examples(14), stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
