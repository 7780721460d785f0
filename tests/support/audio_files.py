"""Audio files for the tests: tones written in any of the six formats, and ways to read back what came out."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

SUFFIXES = (".wav", ".mp3", ".m4a", ".ogg", ".webm", ".flac")
SAMPLE = Path(str(files("worker") / "sample"))
"""Five phrases of a real recording, which the package carries."""

_CODECS = {
    ".wav": "pcm_s16le",
    ".mp3": "libmp3lame",
    ".m4a": "aac",
    ".ogg": "libopus",
    ".webm": "libopus",
    ".flac": "flac",
}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(seconds: float, *, rate: int = 16_000, channels: int = 1, frequency: float = 440.0) -> Samples:
    """A sine at half of full scale: one row per channel."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * frequency * time)
    return np.tile(wave.astype(np.float32), (channels, 1))


def write_samples(path: Path, samples: Samples, *, rate: int, codec: str = "") -> Path:
    """Encodes samples (one row per channel) in the format that the suffix of `path` names; returns `path`."""
    layout = _LAYOUTS[len(samples)]
    with av.open(path, "w") as container:
        stream = container.add_stream(codec or _CODECS[path.suffix], rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        # In pieces, as a recorder would: a format's packets do not follow from how it was fed.
        for start in range(0, samples.shape[1], rate):
            piece = np.ascontiguousarray(samples[:, start : start + rate])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_tone(
    path: Path,
    seconds: float,
    *,
    rate: int = 16_000,
    channels: int = 1,
    frequency: float = 440.0,
    codec: str = "",
) -> Path:
    """Writes a sine of that frequency (Hz) in the format that the suffix of `path` names; returns `path`."""
    samples = tone(seconds, rate=rate, channels=channels, frequency=frequency)
    return write_samples(path, samples, rate=rate, codec=codec)


def truncate(path: Path, share: float = 0.6) -> Path:
    """Cuts the end of a file off, as an interrupted upload does: that share of its bytes stays."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def decode(path: Path) -> tuple[Samples, int]:
    """All samples of a file (one row per channel) and its sample rate."""
    pieces: list[Samples] = []
    with av.open(path, "r") as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        for packet in container.demux(stream):
            for frame in packet.decode():
                pieces += [piece.to_ndarray().astype(np.float32) for piece in resampler.resample(frame)]
        return np.concatenate(pieces, axis=1), stream.sample_rate


def dominant_frequency(samples: npt.NDArray[np.float32], rate: int) -> float:
    """The strongest frequency, in Hz, of one channel."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def loudness(samples: npt.NDArray[np.float32]) -> float:
    """The root of the mean square of one channel."""
    return float(np.sqrt(np.mean(samples**2)))
