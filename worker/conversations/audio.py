"""Joins the audio chunks of one conversation, in any mix of formats, into one MP3.

It is synchronous: PyAV decodes and LAME encodes, outside the GIL, and the caller runs it in a thread. Memory does not
grow with the length of the conversation: it decodes, resamples and encodes about a second at a time.

It must never turn other bytes into noise, never lose a readable chunk because another chunk is damaged, never leave a
partial file at the target, and never leave out anything without naming it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import av
import numpy as np
from av.container import InputContainer

from worker.conversations.mp3 import MP3_RATES, Mp3Writer, Samples, measured_seconds
from worker.errors import NoContentFound

# The accepted formats. Without this list, ffmpeg also reads playlists (which open other files), text and images.
_DEMUXERS: Final = "wav,mp3,aac,mov,ogg,matroska,webm,flac"
# These have no container: any two bytes may look like the start of a frame, so that noise can decode as audio.
_UNFRAMED: Final = frozenset({"mp3", "aac"})
# Frames that must decode in a row before an unframed file counts as audio. Random bytes reach two in a megabyte.
_BELIEVABLE_RUN: Final = 4
# Hz. A damaged header may say 1 Hz, which turns a second into a day.
_BELIEVABLE_RATES: Final = range(4_000, 768_001)
# The errors of PyAV for unreadable files.
_UNREADABLE: Final = (av.FFmpegError, ValueError, OSError)
_LAYOUTS: Final = {1: "mono", 2: "stereo"}
# Each call into PyAV has a cost: it does not matter once per second of audio, but it does once per packet.
_BLOCK_SECONDS: Final = 1
# A complete chunk may be this much shorter than declared: codecs pad, and trim their padding, by less.
_SLACK_SECONDS: Final = 0.1
# The size in the header of a WAV that was written as a stream.
_UNKNOWN_RIFF_SIZE: Final = 0xFFFF_FFFF
_OGG_HEADER: Final = 27
_LONGEST_OGG_PAGE: Final = 65_307
_REASONS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Source:
    """One chunk on disk; `name` is its name in the manifest."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """A chunk that was left out or is damaged in part, with the reason: one line, for people.

    Attributes:
        cut_short: True if reading took too long; with more time, the chunk may be readable.
    """

    name: str
    reason: str
    cut_short: bool = False


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of `concatenate`.

    The duration, in seconds, is measured in the finished file. Names are in the order of the conversation.
    The decodable part of `damaged` chunks is included; `dropped` chunks are not included.
    """

    duration_seconds: float
    sample_rate: int
    channels: int
    included: tuple[str, ...]
    dropped: tuple[Refused, ...]
    damaged: tuple[Refused, ...]


def concatenate(
    sources: Sequence[Source],
    target: Path,
    *,
    check: Callable[[], None],
    file_seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Decodes each source in order and encodes them all as one MP3 at `target`.

    The MP3 has the highest sample rate among the decodable sources (at most 48 kHz), and two channels if one of
    them has. The same sources give the same bytes. `target` appears whole, at the end, or not at all.

    Args:
        sources: WAV, MP3, M4A or AAC, OGG, WebM and FLAC files, in any mix.
        target: The path of the MP3; an existing file is replaced.
        check: Called between packets; an error from it ends the work and reaches the caller unchanged.
        file_seconds: Wall-clock seconds that one source may take; the rest of a slower source is left out.
        progress: Called after each source with the number of finished sources and the number of all.

    Raises:
        NoContentFound: No source holds any audio; the message gives the reasons for the first few.
        OSError: The target cannot be written.
    """
    chunks = [_Chunk(source, check, file_seconds) for source in sources]
    forms = [form for chunk in chunks if (form := chunk.probe())]
    if not forms:
        raise _nothing_in(chunks)
    rate = next((rate for rate in MP3_RATES if rate >= max(form.rate for form in forms)), MP3_RATES[-1])
    channels = min(2, max(form.channels for form in forms))

    partial = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("x+b") as file:
            encoder = Mp3Writer(file, rate, channels)
            for done, chunk in enumerate(chunks, start=1):
                before = encoder.samples
                for block in _harmonised(chunk, rate, channels) if chunk.form else ():
                    encoder.write(block)
                chunk.included = encoder.samples > before
                if progress:
                    progress(done, len(chunks))
            if not encoder.samples:
                raise _nothing_in(chunks)
            encoder.finish()
        seconds = measured_seconds(partial, check)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Merged(
        duration_seconds=seconds,
        sample_rate=rate,
        channels=channels,
        included=tuple(chunk.source.name for chunk in chunks if chunk.included),
        dropped=tuple(chunk.refused for chunk in chunks if not chunk.included),
        damaged=tuple(chunk.refused for chunk in chunks if chunk.included and chunk.troubles),
    )


class _Form(NamedTuple):
    """The properties of audio on which a resampler depends."""

    sample_format: str
    layout: str
    channels: int
    rate: int

    @classmethod
    def of(cls, frame: av.AudioFrame) -> _Form:
        return cls(frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)


class _Chunk:
    """One source while it is read, with its form, its troubles, and the time that it may still take."""

    def __init__(self, source: Source, check: Callable[[], None], seconds: float) -> None:
        self.source = source
        self.form: _Form | None = None
        self.included = False
        self.cut_short = False
        self.troubles: list[str] = []
        self._check = check
        self._bound = self._seconds_left = seconds

    @property
    def refused(self) -> Refused:
        return Refused(self.source.name, "; ".join(self.troubles) or "holds no audio", self.cut_short)

    def probe(self) -> _Form | None:
        """The form of the first decoded audio, because a header may be wrong; None if there is no audio."""
        frames = self.frames()
        first = next(frames, None)
        frames.close()
        self.form = _Form.of(first) if first else None
        return self.form

    def frames(self) -> Generator[av.AudioFrame, None, None]:
        """All credible audio, from the start; after it, `troubles` lists the defects."""
        self.troubles.clear()
        deadline = time.monotonic() + self._seconds_left
        try:
            container = _opened(self.source.path)
        except _UNREADABLE as error:
            self.troubles.append(_in_words(error))
            return
        try:
            with container:
                yield from self._believable(container, deadline)
        finally:
            self._seconds_left = deadline - time.monotonic()

    def _believable(self, container: InputContainer, deadline: float) -> Iterator[av.AudioFrame]:
        needed = _BELIEVABLE_RUN if container.format.name in _UNFRAMED else 1
        held: list[av.AudioFrame] = []
        run = faults = 0
        seconds = 0.0
        for frames in self._decoded(container, deadline):
            if frames is None:
                faults, run = faults + 1, 0
                held.clear()
                continue
            run += bool(frames)
            held += frames
            if run >= needed:
                seconds += sum(frame.samples / frame.sample_rate for frame in held)
                yield from held
                held.clear()
        if not seconds:
            self.troubles = self.troubles or ["holds no audio that can be decoded"]
            return
        if faults:
            self.troubles.append(f"{faults} of its packets cannot be decoded")
        if shortfall := _shortfall(container, seconds):
            self.troubles.append(shortfall)

    def _decoded(self, container: InputContainer, deadline: float) -> Iterator[list[av.AudioFrame] | None]:
        """The frames of each packet, or None for a packet that cannot be read or decoded."""
        stream = container.streams.audio[0]
        packets = container.demux(stream)
        ended = False
        while not ended:
            self._check()
            if time.monotonic() > deadline:
                self.cut_short = True
                self.troubles.append(f"takes more than {self._bound:g} s, the bound for one file")
                return
            frames: list[av.AudioFrame] | None = None
            # A damaged file may raise while it is read or decoded; after a read error, `packets` ends.
            with contextlib.suppress(*_UNREADABLE):
                packet = next(packets, None)
                ended = packet is None
                # Decoding None flushes the decoder, which is right only at the end; an earlier empty packet is skipped.
                frames = stream.decode(packet) if packet is None or packet.size else []
            yield frames


def _opened(path: Path) -> InputContainer:
    """Opens a file with a decodable audio stream; raises `ValueError` or PyAV's error if it has none."""
    if not path.stat().st_size:
        raise ValueError("is empty")
    container = av.open(
        f"file:{path}",
        "r",
        container_options={
            "format_whitelist": _DEMUXERS,
            "protocol_whitelist": "file",
            # Otherwise ffmpeg searches the first megabyte of every WAV for DTS: 10 ms, twice per chunk.
            "max_probe_packets": "1",
        },
        metadata_errors="replace",
    )
    streams = container.streams.audio
    if streams and streams[0].codec_context and streams[0].rate in _BELIEVABLE_RATES:
        return container
    container.close()
    raise ValueError("has no audio stream that can be decoded")


def _in_words(error: Exception) -> str:
    """The reason why a file cannot be opened, as the end of a sentence about it."""
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return "is not WAV, MP3, M4A, AAC, OGG, WebM or FLAC, or has lost its header"
    return f"cannot be opened: {error.strerror}" if isinstance(error, OSError | av.FFmpegError) else str(error)


def _shortfall(container: InputContainer, seconds: float) -> str | None:
    """The sign that audio is missing although all packets were decoded, or None."""
    declared = _declared_seconds(container)
    if declared and seconds < declared - _SLACK_SECONDS:
        return f"holds {seconds:.1f} s of the {declared:.1f} s it declares"
    if _is_cut_off(Path(container.name.removeprefix("file:")), container.format.name):
        return f"is cut off, after {seconds:.1f} s"
    return None


def _declared_seconds(container: InputContainer) -> float | None:
    """The duration in the file's header, or None if ffmpeg has only guessed it from the bit rate."""
    stream = container.streams.audio[0]
    # An MP3 that starts later than 0, because of the encoder's padding, has a tag with the number of its frames.
    if container.format.name == "aac" or (container.format.name == "mp3" and not stream.start_time):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # WebM declares one duration for all of its streams; with a video, it may be the video's.
    whole = container.duration if len(container.streams) == 1 else None
    return whole / av.time_base if whole is not None else None


def _is_cut_off(path: Path, format_name: str) -> bool:
    """Whether a WAV or OGG file ends inside its last chunk or page, which ffmpeg does not report."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if format_name == "wav":
            riff = int.from_bytes(file.read(8)[4:], "little")
            return riff != _UNKNOWN_RIFF_SIZE and riff + 8 > size
        if format_name == "ogg":
            file.seek(max(0, size - _LONGEST_OGG_PAGE))
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            # The header ends with the number of segments; their lengths follow, and then the segments.
            lengths = page[_OGG_HEADER:][: page[_OGG_HEADER - 1]] if len(page) >= _OGG_HEADER else b""
            return not lengths or len(page) < _OGG_HEADER + len(lengths) + sum(lengths)
    return False


def _blocks(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The same audio, in frames of about a second."""
    fifo = av.AudioFifo()
    for frame in frames:
        frame.pts = None  # Damaged files jump in time; only the order counts.
        fifo.write(frame)
        if fifo.samples >= frame.sample_rate * _BLOCK_SECONDS and (block := fifo.read()):
            yield block
    if block := fifo.read():
        yield block


def _harmonised(chunk: _Chunk, rate: int, channels: int) -> Iterator[Samples]:
    """The audio of a chunk in the target's form, with interleaved channels."""
    for form, frames in itertools.groupby(chunk.frames(), key=_Form.of):
        # A resampler from one channel to two would lose 3 dB: the samples are doubled instead.
        kept = min(form.channels, channels)
        resampler = av.AudioResampler(format="s16", layout=_LAYOUTS[kept], rate=rate)
        for block in itertools.chain(_blocks(frames), [None]):  # None flushes the resampler
            try:
                resampled = resampler.resample(block)
            except _UNREADABLE as error:
                chunk.troubles.append(f"cannot be resampled: {error}")
                break
            for frame in resampled:
                yield np.repeat(frame.to_ndarray()[0], channels // kept)


def _nothing_in(chunks: Sequence[_Chunk]) -> NoContentFound:
    reasons = [f"{chunk.refused.name} {chunk.refused.reason}" for chunk in chunks]
    more = [f"and {len(reasons) - _REASONS_SHOWN} more"] if len(reasons) > _REASONS_SHOWN else []
    shown = ", ".join(reasons[:_REASONS_SHOWN] + more)
    return NoContentFound(f"no audio to merge: {shown or 'no chunks'}")
