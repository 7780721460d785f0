"""Merging a stored conversation: real audio, real files, real SQLite."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from types import FrameType

import pytest
from pydantic import SecretStr

from tests.support.audio_files import decode, dominant_frequency, write_tone
from worker.bridge import run_async_in_new_loop
from worker.conversations.importing import import_conversation
from worker.conversations.merging import MergedConversation, Progress, merge_conversation, read_manifest
from worker.conversations.settings import ConversationSettings
from worker.errors import NoContentFound, Unchanged
from worker.settings import Settings
from worker.settings.groups import put_in_force
from worker.stores.conversations import Chunk, Conversation, conversation_store
from worker.stores.objects import object_store
from worker.stores.settings import StoreSettings

SAMPLE = Path(str(files("worker") / "sample"))
NAMES = ["0870.ogg", "0880.ogg", "0890.ogg", "0920.ogg", "0930.ogg"]
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("temporary_folder")


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where merges work, so that a test can look for what they leave."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def merge(conversation_id: str, progress: Progress | None = None) -> MergedConversation:
    return run_async_in_new_loop(merge_conversation(conversation_id, progress=progress))


def keep(conversation_id: str, audio: Iterable[Path | bytes | None]) -> list[str]:
    """A conversation of these recordings, a second apart; `None` is a chunk whose object is missing."""
    listed = list(audio)
    chunks = [
        Chunk(
            id=f"{conversation_id}-{number}",
            started_at=NOON + timedelta(seconds=number),
            audio_key=f"chunks/{conversation_id}/{number}.bin",
        )
        for number in range(len(listed))
    ]

    async def create() -> None:
        objects = await object_store()
        for chunk, content in zip(chunks, listed, strict=True):
            if content is not None:
                await objects.write(str(chunk.audio_key), content)
        await (await conversation_store()).create(conversation_id, chunks)

    run_async_in_new_loop(create)
    return [chunk.id for chunk in chunks]


def recorded(conversation_id: str) -> Conversation:
    async def get() -> Conversation | None:
        return await (await conversation_store()).get(conversation_id)

    found = run_async_in_new_loop(get)
    assert found is not None
    return found


def written(settings: Settings) -> dict[str, tuple[int, str]]:
    """Every merged object and manifest: when it was last written, and what is in it."""
    folder = settings.data_dir / "objects"
    found = {}
    for file in folder.glob("merged/**/*"):
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found[str(file.relative_to(folder))] = (file.stat().st_mtime_ns, content)
    return found


def in_audio_module(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith("worker/conversations/audio.py"):
            return True
        frame = frame.f_back
    return False


def test_the_sample_is_merged_as_one_mp3_with_a_manifest(settings: Settings, temporary_folder: Path) -> None:
    """24.7 s of it, all five phrases in order, and nothing else is written."""
    run_async_in_new_loop(import_conversation(SAMPLE, "sample"))
    merged = merge("sample")
    assert merged.duration_seconds == pytest.approx(24.7, abs=0.3)
    assert merged.included == tuple(f"sample/{name}" for name in NAMES)
    assert (merged.dropped, merged.damaged) == ((), ())
    assert merged.describe() == f"5 chunks, 24.7 s, {merged.key}"
    path = settings.data_dir / "objects" / merged.key
    samples, rate = decode(path)
    assert samples.shape[1] / rate == pytest.approx(merged.duration_seconds, abs=0.1)
    assert recorded("sample").merged_key == merged.key
    manifest = run_async_in_new_loop(read_manifest(merged.key))
    assert manifest == json.loads(json.dumps(asdict(merged))) | {"path": str(path)}
    assert sorted(written(settings)) == [merged.key, f"{merged.key}.json"]
    assert list(temporary_folder.iterdir()) == []


def test_chunks_are_merged_in_the_order_of_their_times(tmp_path: Path, settings: Settings) -> None:
    """Not in that of their names, nor of their formats, rates or channels."""
    low = write_tone(tmp_path / "z.wav", 1, rate=8_000, frequency=300)
    high = write_tone(tmp_path / "a.flac", 1, rate=48_000, channels=2, frequency=1_200)
    keep("ordered", [low, high])
    merged = merge("ordered")
    samples, rate = decode(settings.data_dir / "objects" / merged.key)
    half = samples.shape[1] // 2
    assert dominant_frequency(samples[0][:half], rate) == pytest.approx(300, abs=10)
    assert dominant_frequency(samples[0][half:], rate) == pytest.approx(1_200, abs=10)
    assert (merged.sample_rate, merged.channels) == (48_000, 2)
    assert merged.included == ("ordered-0", "ordered-1")


def test_merging_again_is_unchanged_and_writes_nothing(settings: Settings) -> None:
    """The same object and manifest, untouched, however often."""
    run_async_in_new_loop(import_conversation(SAMPLE, "again"))
    key = merge("again").key
    before = written(settings)
    for _ in range(2):
        with pytest.raises(Unchanged, match="^unchanged$"):
            merge("again")
    assert written(settings) == before
    assert recorded("again").merged_key == key


def test_the_key_says_what_was_merged(tmp_path: Path, settings: Settings) -> None:
    """The same content in the same order gives the same, and nothing else does."""
    one, two = write_tone(tmp_path / "1.wav", 0.3), write_tone(tmp_path / "2.wav", 0.3, frequency=880)
    contents = {"first": [one, two], "same": [one, two], "swapped": [two, one], "less": [one], "more": [one, two, two]}
    last = {}
    for name, audio in contents.items():
        keep(name, audio)
        key = merge(name).key
        assert key.startswith(f"merged/{name}/")
        last[name] = key.rpartition("/")[2]
    assert last.pop("same") == last["first"]
    assert len(set(last.values())) == len(last)


def test_a_changed_chunk_makes_another_object(tmp_path: Path, settings: Settings) -> None:
    """The older one stays, and the conversation names the newer one."""
    keep("changing", [write_tone(tmp_path / "1.wav", 0.3), write_tone(tmp_path / "2.wav", 0.3)])
    before = merge("changing").key
    replacement = write_tone(tmp_path / "3.wav", 0.6)
    (settings.data_dir / "objects" / "chunks" / "changing" / "1.bin").write_bytes(replacement.read_bytes())
    after = merge("changing")
    assert after.key != before
    assert after.duration_seconds == pytest.approx(0.9, abs=0.1)
    assert recorded("changing").merged_key == after.key
    assert sorted(written(settings)) == sorted([before, f"{before}.json", after.key, f"{after.key}.json"])


def test_missing_and_corrupt_chunks_are_left_out_and_named(tmp_path: Path, settings: Settings) -> None:
    """In the result, in its description and in the manifest; the others are merged."""
    good = write_tone(tmp_path / "good.ogg", 0.5)
    ids = keep("damaged", [good, None, b"\0" * 5_000, b"", good])
    merged = merge("damaged")
    assert merged.included == (ids[0], ids[4])
    assert {refused.name for refused in merged.dropped} == {ids[1], ids[2], ids[3]}
    assert all(refused.reason for refused in merged.dropped)
    assert merged.duration_seconds == pytest.approx(1, abs=0.2)
    described = merged.describe()
    assert described.startswith(f"2 of 5 chunks, {merged.duration_seconds:.1f} s, {merged.key}; left out: ")
    assert "\n" not in described
    for name in ids[1:4]:
        assert f"{name} (" in described
    manifest = run_async_in_new_loop(read_manifest(merged.key))
    assert manifest["included"] == [ids[0], ids[4]]
    assert manifest["dropped"] == [asdict(refused) for refused in merged.dropped]


def test_a_merge_of_which_most_is_missing_says_so_again_and_again(tmp_path: Path, settings: Settings) -> None:
    """Also where nothing is done because nothing has changed, and where a chunk is missing that came later."""
    good = write_tone(tmp_path / "good.wav", 0.5)
    ids = keep("partly", [good, None])
    assert merge("partly").describe().startswith("1 of 2 chunks, ")
    with pytest.raises(Unchanged, match=rf"^unchanged: 1 of 2 chunks; left out: {ids[1]} \(no object "):
        merge("partly")
    (settings.data_dir / "objects" / "chunks" / "partly" / "1.bin").write_bytes(good.read_bytes())
    assert merge("partly").describe().startswith("2 chunks, ")
    with pytest.raises(Unchanged, match="^unchanged$"):
        merge("partly")
    later = "INSERT INTO chunks VALUES ('later', 'partly', '2025-01-01 00:00:00.000000', 'chunks/none', NULL)"
    with closing(sqlite3.connect(settings.data_dir / "conversations.db")) as connection, connection:
        connection.execute(later)
    assert merge("partly").describe().startswith("2 of 3 chunks, ")


def test_a_chunk_whose_audio_arrives_later_is_merged_then(tmp_path: Path, settings: Settings) -> None:
    """What was left out once is not left out for ever."""
    good = write_tone(tmp_path / "good.wav", 0.5)
    ids = keep("late", [good, None])
    assert merge("late").included == (ids[0],)
    (settings.data_dir / "objects" / "chunks" / "late" / "1.bin").write_bytes(good.read_bytes())
    merged = merge("late")
    assert (merged.included, merged.dropped) == (tuple(ids), ())


def test_what_holds_no_audio_is_no_content(tmp_path: Path, settings: Settings) -> None:
    """No chunks, no audio, none that is there, none that can be decoded: skipped, and nothing is written."""

    async def only_transcripts() -> None:
        chunks = [Chunk(id="words-1", started_at=NOON, transcript="Some words.")]
        await (await conversation_store()).create("words", chunks)

    run_async_in_new_loop(only_transcripts)
    keep("empty", [])
    keep("missing", [None, None])
    keep("corrupt", [b"no audio", b"\xff" * 1_000, b""])
    for name in ("unknown", "empty", "words", "missing", "corrupt"):
        with pytest.raises(NoContentFound) as raised:
            merge(name)
        assert not isinstance(raised.value, Unchanged)
        assert str(raised.value)
    assert written(settings) == {}
    assert recorded("corrupt").merged_key is None


def test_the_time_out_stops_the_thread_and_leaves_nothing(
    tmp_path: Path, settings: Settings, temporary_folder: Path
) -> None:
    """Nobody decodes any more when the error arrives, and neither object, row nor file is left."""
    long = write_tone(tmp_path / "long.wav", 1_800, rate=8_000)
    keep("long", [long])
    put_in_force(ConversationSettings(merge_timeout=timedelta(milliseconds=500)))
    with pytest.raises(TimeoutError, match=r"longer than 500ms \(WORKER_MERGE_TIMEOUT\)"):
        merge("long")
    assert not any(in_audio_module(frame) for frame in sys._current_frames().values())
    assert written(settings) == {}
    assert recorded("long").merged_key is None
    assert list(temporary_folder.iterdir()) == []


def test_a_file_that_takes_longer_than_its_bound_is_named(tmp_path: Path, settings: Settings) -> None:
    """Cut there, and those after it are merged all the same."""
    long, short = write_tone(tmp_path / "long.wav", 1_800, rate=8_000), write_tone(tmp_path / "short.wav", 0.5)
    ids = keep("bounded", [long, short])
    put_in_force(ConversationSettings(merge_file_timeout=timedelta(milliseconds=300)))
    merged = merge("bounded")
    [named] = (*merged.damaged, *merged.dropped)
    assert (named.name, merged.included[-1]) == (ids[0], ids[1])
    assert "0.3 s" in named.reason
    assert merged.duration_seconds < 1_700


def test_what_a_slow_machine_left_out_is_tried_again(tmp_path: Path, settings: Settings) -> None:
    """A file over its bound is no property of the file: with more time, the merge is whole."""
    ids = keep("slow", [write_tone(tmp_path / "long.wav", 600, rate=8_000), write_tone(tmp_path / "short.wav", 0.5)])
    put_in_force(ConversationSettings(merge_file_timeout=timedelta(milliseconds=100)))
    assert merge("slow").duration_seconds < 590
    put_in_force(ConversationSettings())
    merged = merge("slow")
    assert merged.included == tuple(ids)
    assert (merged.dropped, merged.damaged) == ((), ())


def test_a_crash_before_the_row_was_written_is_repaired(tmp_path: Path, settings: Settings) -> None:
    """The next run finds the object, names it in the row, and writes no other."""
    keep("crashed", [write_tone(tmp_path / "1.wav", 0.3)])
    key = merge("crashed").key
    before = written(settings)
    database = settings.data_dir / "conversations.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE conversations SET merged_key = NULL")
    with pytest.raises(Unchanged):
        merge("crashed")
    assert recorded("crashed").merged_key == key
    assert written(settings) == before


def test_a_crash_before_the_manifest_was_written_is_repaired(tmp_path: Path, settings: Settings) -> None:
    """The next run writes the same bytes, and the manifest."""
    keep("crashed", [write_tone(tmp_path / "1.wav", 0.3)])
    first = merge("crashed")
    before = {name: content for name, (_, content) in written(settings).items()}
    (settings.data_dir / "objects" / f"{first.key}.json").unlink()
    assert merge("crashed") == first
    assert {name: content for name, (_, content) in written(settings).items()} == before


def test_progress_is_told_after_each_chunk(tmp_path: Path, settings: Settings) -> None:
    """Those that are left out too, each once and in order."""
    good = write_tone(tmp_path / "good.wav", 0.2)
    keep("told", [good, b"corrupt", good])
    told: list[tuple[int, int]] = []
    merge("told", lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_progress_that_is_told_does_not_fail_the_merge(tmp_path: Path, settings: Settings) -> None:
    """An unchanged conversation has nothing to tell."""
    keep("quiet", [write_tone(tmp_path / "good.wav", 0.2)])
    merge("quiet")
    told: list[int] = []
    with pytest.raises(Unchanged):
        merge("quiet", lambda done, total: told.append(done))
    assert told == []


@pytest.mark.parametrize("conversation_id", ["room/1", "a b", "50%", "ü#1", "[x]", "+49 30 1234"])
def test_ids_that_others_chose_are_merged(tmp_path: Path, settings: Settings, conversation_id: str) -> None:
    """A conversation that was not imported by us may be called anything."""
    keep(conversation_id, [write_tone(tmp_path / "1.wav", 0.2)])
    merged = merge(conversation_id)
    assert sorted(written(settings)) == [merged.key, f"{merged.key}.json"]
    with pytest.raises(Unchanged):
        merge(conversation_id)


def test_chunks_from_a_store_that_is_no_folder_are_merged(
    tmp_path: Path, settings: Settings, temporary_folder: Path
) -> None:
    """Each as itself, even if their keys look alike; the copies are gone afterwards."""
    put_in_force(StoreSettings(objects_url=SecretStr("memory:///")))
    tones = {
        "a/b_c.wav": write_tone(tmp_path / "low.wav", 1, frequency=300),
        "a_b/c.wav": write_tone(tmp_path / "high.wav", 1, frequency=1_200),
    }

    async def merged_there() -> bytes:
        conversations, objects = await conversation_store(), await object_store()
        chunks = []
        for number, (key, tone) in enumerate(tones.items()):
            await objects.write(key, tone)
            chunks.append(Chunk(id=key, started_at=NOON + timedelta(seconds=number), audio_key=key))
        await conversations.create("remote", chunks)
        return await objects.read((await merge_conversation("remote")).key)

    (tmp_path / "merged.mp3").write_bytes(run_async_in_new_loop(merged_there))
    samples, rate = decode(tmp_path / "merged.mp3")
    half = samples.shape[1] // 2
    heard = [dominant_frequency(part, rate) for part in (samples[0][:half], samples[0][half:])]
    assert heard == pytest.approx([300, 1_200], abs=10)
    assert not (settings.data_dir / "objects").exists()
    assert list(temporary_folder.iterdir()) == []
