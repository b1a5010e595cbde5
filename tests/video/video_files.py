"""Making small video files of every kind that a data set may hold."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray


def stripes(count: int, height: int = 96, width: int = 160) -> NDArray[np.uint8]:
    """``[count, height, width, 3]``: frame i is as bright as its number says; the upper left is lit."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames += (20 + np.arange(count) * (200 // count)).astype(np.uint8)[:, None, None, None]
    frames[:, : height // 4, : width // 4] = (250, 30, 30)
    return frames


def write_stream(
    path: Path,
    frames: NDArray[np.uint8],
    rate: int,
    codec: str = "libx264",
    start: int = 0,
    rotation: int = 0,
    faststart: bool = False,
) -> None:
    """One stream in whatever container the name says; with B-frames where the codec likes them."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 800_000
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = start + number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_streams(
    path: Path, videos: Sequence[NDArray[np.uint8]], rates: Sequence[int], seconds_of_sound: int = 0
) -> None:
    """Several video streams, the last of them flagged as default, and silence in one MP4."""
    with av.open(str(path), "w") as container:
        streams = []
        for frames, rate in zip(videos, rates, strict=True):
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        if streams:
            streams[-1].disposition = Disposition.default  # else the first one is
        sound = container.add_stream("aac", rate=8000) if seconds_of_sound else None
        for stream, frames in zip(streams, videos, strict=True):
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        if sound is not None:
            silence = np.zeros((1, 8000 * seconds_of_sound), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
