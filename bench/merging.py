"""Measures the time and the memory of merging an hour of audio, in many small files of mixed formats, into one MP3.

It builds a conversation, then merges it in turn with `worker.conversations.audio` and, if ffmpeg is on the PATH, with
ffmpeg's own concat filter: the same files, to the same sample rate, channels and bit rate, with the same encoder.
Every run is a process of its own, timed from its start to its end; its peak memory is the system's figure.

    python bench/merging.py [--hours 1] [--chunks 360] [--rounds 3] [--json FILE]

Most of the work is LAME's: both use version 3.100 at its own default quality, each as its packager compiled it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from worker.conversations.audio import Source, concatenate

Samples = npt.NDArray[np.int16]

SPEECH = Path(__file__).parents[2] / "shared" / "data" / "librivox"
RATE, CHANNELS, BIT_RATE = 48_000, 2, 128_000  # our choice for the files below
CODECS = {
    ".wav": "pcm_s16le",
    ".mp3": "libmp3lame",
    ".m4a": "aac",
    ".ogg": "libopus",
    ".webm": "libopus",
    ".flac": "flac",
}
FORMS = tuple(itertools.product((16_000, 44_100, 48_000), ("mono", "stereo")))
SPEECH_RATE = 16_000


def speech() -> Samples:
    """Some seconds of speech, or of sound that keeps codecs as busy: tones that come and go, over noise."""
    pieces = []
    for path in sorted(SPEECH.glob("*.wav")):
        with av.open(path, "r") as container:
            pieces += [frame.to_ndarray().astype(np.int16) for frame in container.decode(audio=0)]
    if pieces:
        recorded: Samples = np.concatenate(pieces, axis=1)[0].astype(np.int16)
        return recorded
    moment = np.arange(SPEECH_RATE * 25) / SPEECH_RATE
    wave: npt.NDArray[np.float64] = np.random.default_rng(0).normal(0, 0.1, moment.size)
    for tone in (150, 450, 1700):
        wave += np.sin(2 * np.pi * tone * moment) * np.sin(2 * np.pi * moment * tone / 100) ** 2
    samples: Samples = (wave * 6_000).astype(np.int16)
    return samples


def write_chunk(path: Path, samples: Samples, rate: int, layout: str) -> None:
    with av.open(path, "w") as container:
        # Opus knows only some rates, of which 48 kHz is the usual one.
        stream = container.add_stream(CODECS[path.suffix], rate=48_000 if path.suffix in {".ogg", ".webm"} else rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        for start in range(0, samples.size, SPEECH_RATE):
            piece = np.ascontiguousarray(samples[None, start : start + SPEECH_RATE])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts = SPEECH_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def build(folder: Path, hours: float, chunks: int) -> None:
    """Writes the chunks of a conversation, every format in every form in turn."""
    recording = speech()
    length = round(hours * 3600 / chunks * SPEECH_RATE)
    suffixes = itertools.cycle(CODECS)
    forms: Iterator[tuple[int, str]] = itertools.chain.from_iterable(
        itertools.repeat(form, len(CODECS)) for form in itertools.cycle(FORMS)
    )
    for number in range(chunks):
        samples = np.take(recording, range(number * length, (number + 1) * length), mode="wrap")
        write_chunk(folder / f"{number:05d}{next(suffixes)}", samples, *next(forms))


def merge(folder: Path, target: Path) -> None:
    sources = [Source(path.name, path) for path in sorted(folder.iterdir())]
    merged = concatenate(sources, target, check=lambda: None, file_seconds=60)
    if merged.dropped or merged.damaged or (merged.sample_rate, merged.channels) != (RATE, CHANNELS):
        sys.exit(f"not what was asked for: {merged}")


def ffmpeg_command(program: str, folder: Path, target: Path) -> list[str]:
    """The command for ffmpeg's concat filter, with a filter for each input, because all inputs must be alike."""
    inputs = sorted(folder.iterdir())
    same = f"aformat=sample_fmts=fltp:sample_rates={RATE}:channel_layouts=stereo"
    alike = ";".join(f"[{number}:a]{same}[a{number}]" for number in range(len(inputs)))
    joined = "".join(f"[a{number}]" for number in range(len(inputs)))
    return [
        *(program, "-v", "error", "-nostdin", "-y"),
        *itertools.chain.from_iterable(("-i", str(path)) for path in inputs),
        *("-filter_complex", f"{alike};{joined}concat=n={len(inputs)}:v=0:a=1[out]", "-map", "[out]"),
        *("-c:a", "libmp3lame", "-b:a", str(BIT_RATE), str(target)),
    ]


def run(command: list[str]) -> tuple[float, float, float]:
    """Runs a command to its end; returns its wall-clock seconds, its CPU seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def length_of(path: Path) -> float:
    with av.open(path, "r") as container:
        return (container.duration or 0) / av.time_base


def compare(hours: float, chunks: int, rounds: int) -> dict[str, Any]:
    program = shutil.which("ffmpeg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "chunks"
        folder.mkdir()
        # In a process of its own, because a child's peak memory starts from its parent's memory.
        run([sys.executable, __file__, "--build", str(folder), "--hours", str(hours), "--chunks", str(chunks)])
        targets = {"ours": Path(name) / "ours.mp3"}
        commands = {"ours": [sys.executable, __file__, "--merge", str(folder), str(targets["ours"])]}
        if program:
            targets["ffmpeg"] = Path(name) / "ffmpeg.mp3"
            commands["ffmpeg"] = ffmpeg_command(program, folder, targets["ffmpeg"])
        runs: dict[str, list[tuple[float, float, float]]] = {who: [] for who in commands}
        for _ in range(rounds):
            for who, command in commands.items():
                runs[who].append(run(command))
        results: dict[str, dict[str, Any]] = {
            who: {
                "seconds": statistics.median(seconds for seconds, _, _ in those),
                "cpu_seconds": statistics.median(cpu for _, cpu, _ in those),
                "peak_mb": max(peak for _, _, peak in those),
                "all_seconds": [round(seconds, 3) for seconds, _, _ in those],
                "output_seconds": length_of(targets[who]),
                "output_bytes": targets[who].stat().st_size,
            }
            for who, those in runs.items()
        }
    return {
        "hours": hours,
        "chunks": chunks,
        "rounds": rounds,
        "content": "speech" if SPEECH.is_dir() else "synthetic",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "pyav": av.__version__,
        "ffmpeg": ffmpeg_version(program) if program else None,
        "lameenc": importlib.metadata.version("lameenc"),
        "results": results,
        "ratio": results["ours"]["seconds"] / results["ffmpeg"]["seconds"] if program else None,
    }


def ffmpeg_version(program: str) -> str:
    shown = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stdout
    return shown.split()[2]


def show(report: dict[str, Any]) -> None:
    print(f"{report['hours']:g} h of {report['content']} in {report['chunks']} chunks, {report['machine']}")
    print(f"{'':8}{'time (s)':>10}{'ratio':>8}{'CPU (s)':>10}{'peak (MB)':>11}{'output (s)':>12}")
    base = report["results"].get("ffmpeg", report["results"]["ours"])["seconds"]
    for who, result in report["results"].items():
        print(
            f"{who:8}{result['seconds']:10.2f}{result['seconds'] / base:8.2f}{result['cpu_seconds']:10.2f}"
            f"{result['peak_mb']:11.0f}{result['output_seconds']:12.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="length of the conversation")
    parser.add_argument("--chunks", type=int, default=360, help="number of its files")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn; the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file to write the figures to")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--merge", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, options.hours, options.chunks)
    elif options.merge:
        merge(*options.merge)
    else:
        report = compare(options.hours, options.chunks, options.rounds)
        show(report)
        print(json.dumps(report))
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
