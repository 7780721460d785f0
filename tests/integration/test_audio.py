"""Merging chunks of audio, against real files in every format that is accepted."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.audio_files import (
    SAMPLE,
    SUFFIXES,
    decode,
    dominant_frequency,
    loudness,
    truncate,
    write_samples,
    write_tone,
)
from worker.conversations.audio import Merged, Source, concatenate
from worker.errors import NoContentFound

RATES = {".wav": 22_050, ".mp3": 44_100, ".m4a": 32_000, ".ogg": 48_000, ".webm": 48_000, ".flac": 16_000}


class StopHereError(Exception):
    """What the check of a cancelled attempt raises."""


def fine() -> None:
    """A check that has nothing against going on."""


def merge(
    paths: Sequence[Path],
    target: Path,
    *,
    check: Callable[[], None] = fine,
    file_seconds: float = 60,
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Merges files which are named as they are on disk."""
    sources = [Source(path.name, path) for path in paths]
    return concatenate(sources, target, check=check, file_seconds=file_seconds, progress=progress)


def left_in(folder: Path) -> set[str]:
    """The names of all files in a folder, the hidden ones too."""
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A path in a folder that holds nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "merged.mp3"


def test_recorded_speech_keeps_its_length(target: Path) -> None:
    """Five recordings of 24.73 s in all become one MP3 of that length, as measured and as decoded."""
    merged = merge(sorted(SAMPLE.glob("*.ogg")), target)
    samples, rate = decode(target)
    assert merged.duration_seconds == pytest.approx(24.73, abs=0.1)
    assert samples.shape[1] / rate == pytest.approx(merged.duration_seconds, abs=0.001)
    assert (merged.sample_rate, merged.channels, rate, len(samples)) == (48_000, 1, 48_000, 1)
    assert len(merged.included) == 5
    assert merged.dropped == merged.damaged == ()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read_whole(suffix: str, tmp_path: Path, target: Path) -> None:
    """A chunk in each of the formats comes out with its length, its pitch and its loudness."""
    chunk = write_tone(tmp_path / f"a{suffix}", 2, rate=RATES[suffix], frequency=660)
    merged = merge([chunk], target)
    samples, rate = decode(target)
    middle = samples[0, rate // 2 : -rate // 2]
    assert merged.duration_seconds == pytest.approx(2, abs=0.05)
    assert merged.sample_rate == rate == RATES[suffix]
    assert dominant_frequency(middle, rate) == pytest.approx(660, abs=5)
    # LAME turns a signal down by 5 % at these bit rates, so that it does not clip.
    assert loudness(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    assert (merged.dropped, merged.damaged) == ((), ())


def test_chunks_of_mixed_formats_rates_and_channels_follow_each_other_in_order(tmp_path: Path, target: Path) -> None:
    """Each second of the result has the tone of the chunk whose turn it is, at the highest rate, in stereo."""
    tones = {suffix: 300.0 + 250 * number for number, suffix in enumerate(SUFFIXES)}
    chunks = [
        write_tone(
            tmp_path / f"{suffix[1:]}{suffix}", 1, rate=RATES[suffix], channels=channels, frequency=tones[suffix]
        )
        for suffix, channels in zip(SUFFIXES, itertools.cycle((1, 2)), strict=False)
    ]
    merged = merge(chunks, target)
    samples, rate = decode(target)
    assert (merged.sample_rate, merged.channels, rate, len(samples)) == (48_000, 2, 48_000, 2)
    assert merged.included == tuple(chunk.name for chunk in chunks)
    for number, suffix in enumerate(SUFFIXES):
        part = samples[:, round((number + 0.2) * rate) : round((number + 0.8) * rate)]
        for channel in part:
            assert dominant_frequency(channel, rate) == pytest.approx(tones[suffix], abs=5)
            # Mono is no quieter than stereo.
            assert loudness(channel) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100])
def test_players_skip_the_padding_of_the_encoder(rate: int, channels: int, tmp_path: Path, target: Path) -> None:
    """Of each kind of MP3, every sample comes back at its own place, and not one more."""
    chirp = 0.5 * np.sin(2 * np.pi * 300 * (np.arange(rate + 123) / rate + 1) ** 2).astype(np.float32)
    chunk = write_samples(tmp_path / "a.wav", np.tile(chirp, (channels, 1)), rate=rate)
    merged = merge([chunk], target)
    samples, _ = decode(target)
    assert merged.duration_seconds == pytest.approx(chirp.size / rate, abs=1e-6)
    assert samples.shape == (channels, chirp.size)
    assert float(np.corrcoef(samples[0], chirp)[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("source_rate", "result_rate"),
    [(6_000, 8_000), (11_025, 11_025), (24_000, 24_000), (30_000, 32_000), (96_000, 48_000)],
)
def test_the_rate_is_one_that_mp3_has(source_rate: int, result_rate: int, tmp_path: Path, target: Path) -> None:
    """A rate that MP3 does not have is raised to the next one, or lowered to 48 kHz, and the length stays."""
    merged = merge([write_tone(tmp_path / "a.wav", 2, rate=source_rate, channels=2)], target)
    samples, rate = decode(target)
    assert merged.sample_rate == rate == result_rate
    assert merged.duration_seconds == pytest.approx(2, abs=0.01)
    assert samples.shape == (2, round(merged.duration_seconds * rate))


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_f32le", "pcm_f64le", "pcm_alaw"])
def test_wav_of_any_sample_format_is_read(codec: str, tmp_path: Path, target: Path) -> None:
    """8-bit, 24-bit, floating-point and telephone WAVs sound as they were recorded."""
    merged = merge([write_tone(tmp_path / "a.wav", 1, rate=8_000, frequency=440, codec=codec)], target)
    samples, rate = decode(target)
    assert dominant_frequency(samples[0], rate) == pytest.approx(440, abs=5)
    assert (merged.dropped, merged.damaged) == ((), ())


@pytest.mark.parametrize("suffix", [".wav", ".m4a", ".flac"])
def test_surround_sound_becomes_stereo(suffix: str, tmp_path: Path, target: Path) -> None:
    """Six channels are mixed down to two."""
    merged = merge([write_tone(tmp_path / f"a{suffix}", 1, rate=44_100, channels=6, frequency=440)], target)
    samples, rate = decode(target)
    assert merged.channels == len(samples) == 2
    assert dominant_frequency(samples[0], rate) == pytest.approx(440, abs=5)


def test_a_file_whose_form_changes_midway_is_read_to_its_end(tmp_path: Path, target: Path) -> None:
    """An MP3 that goes on at another rate, in stereo, is resampled anew from there."""
    first = write_tone(tmp_path / "1.mp3", 2, rate=44_100, frequency=440)
    second = write_tone(tmp_path / "2.mp3", 2, rate=24_000, channels=2, frequency=880)
    both = tmp_path / "both.mp3"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    merged = merge([both], target)
    samples, rate = decode(target)
    assert merged.duration_seconds == pytest.approx(4, abs=0.2)
    assert dominant_frequency(samples[0, : 2 * rate], rate) == pytest.approx(440, abs=5)
    assert dominant_frequency(samples[0, -rate:], rate) == pytest.approx(880, abs=5)


def bad_chunks(folder: Path) -> dict[str, bytes]:
    """Contents, by name, of files that are not audio, or no more."""
    noise = random.Random(1).randbytes(300_000)
    whole = write_tone(folder / "whole.m4a", 2, rate=44_100).read_bytes()
    return {
        "empty.mp3": b"",
        "text.mp3": b"You have reached the voice mail of nobody.\n" * 2_000,
        "playlist.mp3": b"#EXTM3U\n#EXTINF:1,\nwhole.m4a\n",
        "subtitles.wav": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
        "random.wav": noise,
        "synced.mp3": b"\xff\xfb\x90\x64" + noise,
        "tagged.mp3": b"ID3\x03\x00\x00\x00\x00\x00\x10" + noise,
        "adts.aac": b"\xff\xf1\x50\x80" + noise,
        "header.flac": b"fLaC" + noise,
        "page.ogg": b"OggS\x00\x02" + noise,
        "half.m4a": whole[: len(whole) // 2],
    }


def test_what_is_not_audio_is_dropped_and_named(tmp_path: Path, target: Path) -> None:
    """Empty, text, random and headless chunks add not a sample, and each is named with its reason."""
    bad = bad_chunks(tmp_path)
    chunks = [write_tone(tmp_path / "good.wav", 1)]
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        chunks.append(tmp_path / name)
    chunks.append(tmp_path / "absent.wav")
    merged = merge(chunks, target)
    assert merged.included == ("good.wav",)
    assert merged.duration_seconds == pytest.approx(1, abs=0.01)
    assert [refused.name for refused in merged.dropped] == [*bad, "absent.wav"]
    assert all(refused.reason and "\n" not in refused.reason for refused in merged.dropped)
    assert merged.dropped[0].reason == "is empty"
    assert merged.dropped[-1].reason == "cannot be opened: No such file or directory"


def test_random_bytes_never_become_noise(tmp_path: Path, target: Path) -> None:
    """Of many random files behind the first bytes of every format, none is taken for audio."""
    starts = [
        b"",
        b"\xff\xfb\x90\x64",
        b"\xff\xf1\x50\x80",
        b"fLaC",
        b"OggS\x00\x02",
        b"\x1aE\xdf\xa3",
        b"\x00\x00\x00\x20ftypM4A ",
    ]
    chunks = []
    for seed, (start, size) in enumerate(itertools.product(starts, (10, 500, 3_000, 20_000, 200_000))):
        chunk = tmp_path / f"{seed}.mp3"
        chunk.write_bytes(start + random.Random(seed).randbytes(size))
        chunks.append(chunk)
    with pytest.raises(NoContentFound, match=r"and 30 more"):
        merge(chunks, target)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".m4a"])
def test_a_chunk_cut_off_is_kept_as_far_as_it_goes_and_named(suffix: str, tmp_path: Path, target: Path) -> None:
    """60 % of a file is about 60 % of its sound; the chunk is included, and named as damaged."""
    chunks = [
        truncate(write_tone(tmp_path / f"cut{suffix}", 5, rate=RATES[suffix], frequency=440)),
        write_tone(tmp_path / "next.wav", 1, frequency=880),
    ]
    merged = merge(chunks, target)
    samples, rate = decode(target)
    assert merged.included == (f"cut{suffix}", "next.wav")
    assert [refused.name for refused in merged.damaged] == [f"cut{suffix}"]
    assert merged.duration_seconds == pytest.approx(4, abs=0.5)
    assert dominant_frequency(samples[0, :rate], rate) == pytest.approx(440, abs=5)
    assert dominant_frequency(samples[0, -rate + 1_000 :], rate) == pytest.approx(880, abs=5)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".wav"])
def test_a_chunk_damaged_in_the_middle_loses_only_that(suffix: str, tmp_path: Path, target: Path) -> None:
    """What comes before and after the damage is kept, and the chunk is named."""
    # Not WAV: samples are bytes like any other. WebM is lost up to its next cluster, which starts every 5 seconds.
    chunk = write_tone(tmp_path / f"a{suffix}", 20, rate=RATES[suffix], frequency=440)
    content = bytearray(chunk.read_bytes())
    middle, length = len(content) // 2, len(content) // 20
    content[middle : middle + length] = random.Random(1).randbytes(length)
    chunk.write_bytes(content)
    merged = merge([chunk], target)
    samples, rate = decode(target)
    assert [refused.name for refused in merged.damaged] == [chunk.name]
    assert 12 < merged.duration_seconds < 19.8
    assert dominant_frequency(samples[0, :rate], rate) == pytest.approx(440, abs=5)
    assert dominant_frequency(samples[0, -rate:], rate) == pytest.approx(440, abs=5)


def test_a_wav_written_as_a_stream_is_whole(tmp_path: Path, target: Path) -> None:
    """A recorder that cannot seek leaves the sizes of a WAV open, which is no damage."""
    chunk = write_tone(tmp_path / "a.wav", 1)
    content = bytearray(chunk.read_bytes())
    data = content.index(b"data")
    content[4:8] = content[data + 4 : data + 8] = b"\xff\xff\xff\xff"
    chunk.write_bytes(content)
    merged = merge([chunk], target)
    assert merged.duration_seconds == pytest.approx(1, abs=0.01)
    assert (merged.dropped, merged.damaged) == ((), ())


def test_nothing_to_merge_is_no_content(tmp_path: Path, target: Path) -> None:
    """No chunks, or none with audio: `NoContentFound` says why, and nothing is written."""
    empty = tmp_path / "empty.mp3"
    empty.touch()
    with pytest.raises(NoContentFound, match=r"no audio to merge: no chunks"):
        merge([], target)
    with pytest.raises(NoContentFound, match=r"no audio to merge: empty\.mp3 is empty"):
        merge([empty], target)
    assert left_in(target.parent) == set()


@pytest.mark.parametrize("calls", [1, 30, 200, 300])
def test_what_check_raises_passes_through_and_leaves_nothing(calls: int, tmp_path: Path, target: Path) -> None:
    """Cancelled while looking at the chunks, decoding or measuring: the same exception, and no file."""
    chunks = [write_tone(tmp_path / f"{number}.mp3", 3) for number in range(2)]
    stop = StopHereError("cancelled")
    count = itertools.count(1)

    def check() -> None:
        if next(count) >= calls:
            raise stop

    with pytest.raises(StopHereError) as raised:
        merge(chunks, target, check=check)
    assert raised.value is stop
    assert next(count) == calls + 1
    assert left_in(target.parent) == set()


def test_an_earlier_result_survives_a_cancelled_attempt(tmp_path: Path, target: Path) -> None:
    """The target is replaced by a whole new one or not at all."""
    target.write_bytes(b"the earlier one")

    def check() -> None:
        raise ValueError("not a fault of the file")

    with pytest.raises(ValueError, match="not a fault of the file"):
        merge([write_tone(tmp_path / "a.wav", 1)], target, check=check)
    assert target.read_bytes() == b"the earlier one"
    assert left_in(target.parent) == {"merged.mp3"}


def test_a_target_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A missing folder fails the work, and is not held against the chunks."""
    with pytest.raises(FileNotFoundError):
        merge([write_tone(tmp_path / "a.wav", 1)], tmp_path / "absent" / "merged.mp3")


def test_a_chunk_over_its_bound_is_dropped_before_and_damaged_after_its_first_sound(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is wall-clock time for one file; the chunks after it have their own."""
    now = 0.0

    def later() -> None:
        nonlocal now
        now += 0.1

    monkeypatch.setattr("worker.conversations.audio.time.monotonic", lambda: now)
    long, short = write_tone(tmp_path / "long.mp3", 20), write_tone(tmp_path / "short.mp3", 1)
    merged = merge([long, short], target, check=later, file_seconds=10)
    assert merged.included == ("long.mp3", "short.mp3")
    assert [refused.name for refused in merged.damaged] == ["long.mp3"]
    assert "takes more than 10 s" in merged.damaged[0].reason
    assert 2 < merged.duration_seconds < 10
    with pytest.raises(NoContentFound, match=r"long\.mp3 takes more than 0\.05 s"):
        merge([long], target, check=later, file_seconds=0.05)


def test_the_same_chunks_give_the_same_bytes(tmp_path: Path) -> None:
    """A second run writes the identical file."""
    chunks = [write_tone(tmp_path / f"a{suffix}", 1, rate=RATES[suffix]) for suffix in SUFFIXES]
    assert merge(chunks, tmp_path / "1.mp3") == merge(chunks, tmp_path / "2.mp3")
    assert (tmp_path / "1.mp3").read_bytes() == (tmp_path / "2.mp3").read_bytes()


def test_progress_counts_every_chunk(tmp_path: Path, target: Path) -> None:
    """Readable or not, each source is reported once, in order."""
    (tmp_path / "empty.mp3").touch()
    chunks = [write_tone(tmp_path / "a.wav", 1), tmp_path / "empty.mp3", write_tone(tmp_path / "b.wav", 1)]
    seen: list[tuple[int, int]] = []
    merge(chunks, target, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def peak_megabytes(chunk: Path, times: int, target: Path) -> float:
    """The peak memory of a process of its own which merges a chunk that many times."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from worker.conversations.audio import Source, concatenate\n"
        "chunk, times, target = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])\n"
        "concatenate([Source('a', chunk)] * times, target, check=lambda: None, file_seconds=60)\n"
        "status = Path('/proc/self/status')\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == 'darwin' else 1e3)\n"
        # Where there is one, the mark of this process alone: the other includes that of its parent.
        "lines = status.read_text().splitlines() if status.exists() else []\n"
        "print(next((int(line.split()[1]) / 1e3 for line in lines if line.startswith('VmHWM')), peak))\n"
    )
    command = [sys.executable, "-c", program, str(chunk), str(times), str(target)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_does_not_grow_with_the_length(tmp_path: Path, target: Path) -> None:
    """Half an hour, in three chunks of ten minutes, needs no more memory than one minute."""
    minute = write_tone(tmp_path / "a.wav", 60, rate=8_000)
    ten_minutes = write_tone(tmp_path / "b.wav", 600, rate=8_000)
    assert peak_megabytes(ten_minutes, 3, target) < peak_megabytes(minute, 1, target) + 20
