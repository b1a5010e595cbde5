"""Writing MP4 files whole or not at all, and the same bytes for the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from vcr1.errors import UserError
from vcr1.records.files import replacing

_TICK = Fraction(1, 90_000)
"""Unit of the times of a file with a variable frame rate; 90 kHz is MPEG's own clock."""

_OPTIONS: dict[str, dict[str, str]] = {
    # Several threads cut a frame otherwise than one does, which would change the bytes.
    "libx264": {"preset": "ultrafast", "crf": "20", "threads": "1"},
    "libx265": {"preset": "ultrafast", "crf": "20", "x265-params": "log-level=error:pools=none"},
    "libsvtav1": {"preset": "10", "crf": "30", "svtav1-params": "lp=1"},
}


def write_mp4(
    path: str | Path,
    frames: NDArray[np.uint8] | Tensor,
    fps: float,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
) -> None:
    """Write frames as an MP4 file, 4:2:0 and by default H.264.

    The file appears under its name when it is complete; a failure leaves neither it nor a remainder, and
    an older file of that name as it was. On one machine equal frames give equal bytes (another version of
    the encoder may give others).

    Args:
        path: the file to write; its folder must exist.
        frames: ``[T, H, W, 3]`` uint8, RGB; H and W even, as 4:2:0 wants it.
        fps: frames per second; with ``times``, what the last frame's length is taken from.
        codec: name of an FFmpeg encoder.
        times: T ascending presentation times in seconds, for a variable frame rate.

    Raises:
        ValueError: frames of another shape or type, a frame rate that is not positive, times that do not
            ascend or are not one per frame.
        UserError: an encoder that this build of PyAV lacks.
    """
    path = Path(path)
    pixels = frames.cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
    _check(pixels, fps, times)
    if codec not in av.codecs_available:
        raise UserError(f"{path}: this build of PyAV has no encoder {codec!r}; take libx264")
    with (
        replacing(path) as scratch,
        # bitexact keeps FFmpeg's version and the date out of the file.
        av.open(str(scratch), "w", format="mp4", options={"fflags": "bitexact"}) as container,
    ):
        _encode(container, pixels, fps, codec, times)


def _encode(
    container: OutputContainer,
    pixels: NDArray[np.uint8],
    fps: float,
    codec: str,
    times: Sequence[float] | None,
) -> None:
    """Encode ``[T, H, W, 3]`` frames into an open container; see :func:`write_mp4`."""
    rate = Fraction(fps).limit_denominator(100_000)
    stream = container.add_stream(codec, rate=rate, options={"flags": "bitexact", **_OPTIONS.get(codec, {})})
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = pixels.shape[1:3]
    stream.pix_fmt = "yuv420p"
    tick = 1 / rate if times is None else _TICK
    stream.codec_context.time_base = tick
    if times is not None:
        # MP4 states lengths in decoding order: with reordered frames they would belong to others.
        stream.codec_context.max_b_frames = 0
    starts = range(len(pixels)) if times is None else [round(time / _TICK) for time in times]
    ends = [*starts[1:], starts[-1] + round(1 / rate / tick)]
    lengths = {start: end - start for start, end in zip(starts, ends, strict=True)}
    images = [*pixels, None]  # None flushes the encoder
    for index, image in enumerate(images):
        frame = None
        if image is not None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = starts[index], tick
        for packet in stream.encode(frame):
            if packet.pts is not None:
                packet.duration = lengths[packet.pts]
            container.mux(packet)


def _check(pixels: NDArray[np.uint8], fps: float, times: Sequence[float] | None) -> None:
    """Raise ValueError for what :func:`write_mp4` cannot write."""
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"frames must be [T, H, W, 3] uint8, got {pixels.shape} {pixels.dtype}")
    if pixels.shape[1] % 2 or pixels.shape[2] % 2:
        raise ValueError(f"4:2:0 needs even sides, got {pixels.shape[2]}x{pixels.shape[1]}")
    if not fps > 0:
        raise ValueError(f"frames per second must be positive, got {fps}")
    if times is None:
        return
    if len(times) != len(pixels):
        raise ValueError(f"{len(times)} times for {len(pixels)} frames")
    if any(later - earlier < _TICK for earlier, later in pairwise(times)):
        raise ValueError("times must ascend, by at least 1/90000 s")
