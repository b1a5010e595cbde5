"""Comparing pictures with their times, by a second way of decoding that cannot go wrong by seeking."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vcr1.records import VideoClip, VideoSource
from vcr1.video.opening import open_video
from vcr1.video.timeline import read_timeline

WITHIN = 1500
"""First frames of a file that are decoded for the comparison: a minute at 25 frames per second."""

_SIDE = 16
_SLACK = 1e-4  # seconds
_ALIKE = 4.0
"""Mean difference of two thumbnails, of 255, that resizing and colour conversion alone may cause."""


def other_frames(source: VideoSource, clip: VideoClip, count: int) -> str | None:
    """Decode a file from its beginning and compare some pictures of a clip; None where they are right.

    A picture is wrong where it resembles the frame of another time much more than that of its own: twice as
    much, so that videos in which little changes cannot be wrong.

    Args:
        source: a file; the pictures of a folder are named, and cannot be mistaken.
        clip: its frames as a run would read them.
        count: how many are compared, among those in the first ``WITHIN`` frames of the file.

    Returns:
        What is shown instead of what, in a sentence without the name of the file.
    """
    early = [place for place, index in enumerate(clip.indices) if index < WITHIN]
    if source.fps is not None or not early or count < 1:
        return None
    chosen = sorted({early[round(step * (len(early) - 1) / max(count - 1, 1))] for step in range(count)})
    times, pictures = _from_the_beginning(source, max(clip.indices[place] for place in chosen) + 1)
    if not len(pictures):
        return None
    for place in chosen:
        time, number = source.start + clip.timestamps[place], clip.indices[place]
        away = np.abs(pictures - _thumbnail(clip.frames[place])).mean(axis=(1, 2))
        # By its time or by its number: a file without presentation times has numbers only.
        own = {max(bisect_right(times, time + _SLACK) - 1, 0), min(number, len(pictures) - 1)}
        nearest = int(away.argmin())
        if min(away[one] for one in own) > 2 * away[nearest] + _ALIKE:
            return (
                f"the picture at {time:.2f} s is that of {times[nearest]:.2f} s by another way of decoding; "
                "set data.loader.decoder=pyav, or convert the video"
            )
    return None


def _from_the_beginning(source: VideoSource, count: int) -> tuple[list[float], NDArray[np.float32]]:
    """Times in seconds and thumbnails ``[n, 16, 16]`` of a file's first frames, and of a few behind them."""
    timeline = read_timeline(source.path)
    shown = timeline.timestamps
    first = float(timeline.pts[0] * timeline.time_base)
    times: list[float] = []
    pictures = []
    with open_video(Path(source.path)) as (container, stream):
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            stated = shown[min(number, len(shown) - 1)]
            times.append(stated if frame.time is None else float(frame.time) - first)
            pixels = frame.reformat(width=_SIDE, height=_SIDE, format="rgb24").to_ndarray()
            pictures.append(np.rot90(_grey(pixels), k=round(frame.rotation / 90)))
            if number >= count + 30:
                break
    return times, np.array(pictures, np.float32)


def _thumbnail(frame: Tensor) -> NDArray[np.float32]:
    """Return ``[3, H, W]`` uint8 -> ``[16, 16]``, grey."""
    small = adaptive_avg_pool2d(frame.to(torch.float32), _SIDE)
    return _grey(small.permute(1, 2, 0).numpy())


def _grey(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return ``[H, W, 3]`` RGB -> ``[H, W]``."""
    return (pixels.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)).astype(np.float32)
