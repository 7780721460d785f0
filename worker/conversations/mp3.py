"""Writes an MP3, and measures the duration of one.

LAME encodes, in the package `lameenc`: the LAME in PyAV's wheels is not optimised, and takes three times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

import av
import lameenc
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

_LOWEST_RATE_OF_MPEG2: Final = 16_000
_LOWEST_RATE_OF_MPEG1: Final = 32_000
# Speech is transparent at 64 kbit/s per channel, which is also the highest total bit rate of MPEG-2.5.
_KILOBITS_PER_CHANNEL: Final = 64
# Bytes between the header and the content of a frame, by its samples and channels.
_SIDE_INFO: Final = {(1152, 1): 17, (1152, 2): 32, (576, 1): 9, (576, 2): 17}
# The default of LAME and of the ffmpeg program, between 0 (best) and 9.
_LAME_QUALITY: Final = 3
# Samples of silence at the start of LAME's output.
_LAME_DELAY: Final = 576
# The sample rates of MP3 (MPEG-2.5, MPEG-2 and MPEG-1), in Hz.
MP3_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


class Mp3Writer:
    """Writes one MP3, complete after `finish`.

    Args:
        file: An empty file, open for reading and writing.
        rate: Samples per second, one of `MP3_RATES`.
        channels: 1 or 2.
    """

    def __init__(self, file: BinaryIO, rate: int, channels: int) -> None:
        self.samples = 0
        self._file = file
        self._channels = channels
        # MPEG-2.5 has no higher bit rate than 64 kbit/s, also for two channels.
        self._kilobits = _KILOBITS_PER_CHANNEL * (channels if rate >= _LOWEST_RATE_OF_MPEG2 else 1)
        self._samples_in_frame = 1152 if rate >= _LOWEST_RATE_OF_MPEG1 else 576
        self._bytes_in_frame = Fraction(self._samples_in_frame * self._kilobits * 1000, 8 * rate)
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(channels)
        self._lame.set_in_sample_rate(rate)
        self._lame.set_out_sample_rate(rate)
        self._lame.set_bit_rate(self._kilobits)
        self._lame.set_quality(_LAME_QUALITY)
        self._tag_size = file.write(bytes(int(self._bytes_in_frame)))

    def write(self, samples: Samples) -> None:
        """Encodes samples with interleaved channels."""
        self.samples += samples.size // self._channels
        self._file.write(self._lame.encode(samples.tobytes()))

    def finish(self) -> None:
        """Flushes LAME, and writes the tag by which players recognise the padding, and skip it."""
        self._file.write(self._lame.flush())
        size = self._file.tell()
        frames = round((size - self._tag_size) / self._bytes_in_frame)
        padding = frames * self._samples_in_frame - _LAME_DELAY - self.samples
        self._file.seek(self._tag_size)
        header = self._file.read(4)
        self._file.seek(0)
        self._file.write(self._tag(header, frames, size, padding))

    def _tag(self, header: bytes, frames: int, size: int, padding: int) -> bytes:
        """LAME's Info tag, after the header of a frame; other players play it as a frame of silence."""
        without_extra_byte = bytes((*header[:2], header[2] & ~2, header[3]))
        seek_table = bytes(256 * percent // 100 for percent in range(100))
        skipped = (_LAME_DELAY << 12 | padding).to_bytes(3, "big")
        tag = without_extra_byte + bytes(_SIDE_INFO[self._samples_in_frame, self._channels])
        tag += struct.pack(">4sIII100s4x", b"Info", 0b1111, frames, size, seek_table)
        tag += struct.pack(">9sB10xB3s4xI2x", b"LAME3.100", 1, self._kilobits, skipped, size)
        crc = 0
        for byte in tag:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (crc & 1) * 0xA001
        return tag + crc.to_bytes(2, "big")


def measured_seconds(path: Path, check: Callable[[], None]) -> float:
    """The duration of a finished MP3 in seconds, without the encoder's padding, which players skip."""
    seconds = Fraction()
    with av.open(f"file:{path}", "r", format="mp3") as container:
        stream = container.streams.audio[0]
        ticks = 0
        for packet in container.demux(stream):
            check()
            ticks += packet.duration or 0
            if packet.has_sidedata("skip_samples"):
                seconds -= Fraction(sum(struct.unpack_from("<II", packet.get_sidedata("skip_samples"))), stream.rate)
        seconds += ticks * (stream.time_base or Fraction())
    return float(seconds)
