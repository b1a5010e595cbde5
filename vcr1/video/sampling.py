"""Which frames of a clip the model sees, and at what size. Pure arithmetic: no decoder, no tensors.

The rules are those of Qwen2.5-VL's own pre-processing (``qwen_vl_utils``: ``smart_nframes`` and
``smart_resize``), which the paper trains with; the one departure is explained at :func:`sample_indices`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from vcr1.errors import UserError, VideoError

MAX_ASPECT_RATIO = 200
"""Longer side over shorter side; the model's own pre-processing refuses more."""

_COUNT_SLACK = 0.01
"""Part of a frame that a clip may fall short of a whole count. Matroska rounds times to milliseconds: a clip
of 4 s may state 3.999 s, and 7.998 frames should not become 6."""

_TIME_SLACK = 1e-6
"""Part of a cell by which a frame may come late. Far above the error of float64 arithmetic and, up to a
million frames, too small to reach a frame that begins later."""


@dataclass(frozen=True, slots=True)
class FrameBudget:
    """How much of a video the model may see. The defaults are the paper's.

    Attributes:
        fps: sampled frames per second. Above 4, frames of Qwen2.5-VL share positions: it counts time in half
            seconds and joins two frames in a step, so that the 80 steps of 20 s at 8 fps lie on 40 positions.
        min_frames: fewest frames of a clip that has that many.
        max_frames: most frames of a clip.
        min_pixels: fewest pixels of a frame; smaller frames are enlarged.
        total_pixels: pixels of the whole clip, counted once per temporal patch.

    Raises:
        UserError: a value that leaves no room for a frame; the message names the configuration's field.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    min_pixels: int = 16 * 28 * 28
    total_pixels: int = 3584 * 28 * 28

    def __post_init__(self) -> None:
        if not isinstance(self.fps, int | float) or not (math.isfinite(self.fps) and self.fps > 0):
            raise UserError(f"data.video.fps must be a positive number, got {self.fps}")
        if self.min_frames < 1:
            raise UserError(f"data.video.min_frames must be at least 1, got {self.min_frames}")
        if self.max_frames < self.min_frames:
            raise UserError(
                f"data.video.max_frames must be at least min_frames ({self.min_frames}), "
                f"got {self.max_frames}"
            )
        if self.min_pixels < 1:
            raise UserError(f"data.video.min_pixels must be at least 1, got {self.min_pixels}")
        if self.total_pixels < self.min_pixels:
            raise UserError(
                f"data.video.total_pixels must be at least min_pixels ({self.min_pixels}), "
                f"got {self.total_pixels}"
            )


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Frames and pixels that one vision token of the model covers.

    Attributes:
        temporal: frames per temporal patch.
        spatial: pixels per side (patch size times merge size).

    Raises:
        ValueError: a size below 1.
    """

    temporal: int = 2
    spatial: int = 28

    def __post_init__(self) -> None:
        if self.temporal < 1 or self.spatial < 1:
            raise ValueError(f"a patch covers at least one frame and one pixel, got {self}")

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Return vision tokens of so many frames of ``height`` x ``width`` pixels."""
        return frames // self.temporal * (height // self.spatial) * (width // self.spatial)


def count_frames(duration: float, total_frames: int, budget: FrameBudget, grid: PatchGrid) -> int:
    """Return number of frames to sample: ``duration * fps`` within bounds, in whole temporal patches.

    The rule of ``qwen_vl_utils.smart_nframes``: at least ``min_frames`` (rounded up to whole patches), at
    most ``max_frames`` (rounded down) and at most what the source holds, then floored to whole patches.
    Where the source holds less than one temporal patch, ``smart_nframes`` raises; here one patch is
    sampled, and :func:`sample_indices` repeats frames to fill it.

    Args:
        duration: seconds of source.
        total_frames: frames of source.
        budget: frame rate and bounds.
        grid: frames per temporal patch.

    Raises:
        ValueError: a source without length or frames.
    """
    _check_source(duration, total_frames)
    patch = grid.temporal
    fewest = math.ceil(budget.min_frames / patch) * patch
    most = min(budget.max_frames // patch * patch, total_frames)
    count = min(max(duration * budget.fps, fewest), most)
    return max(math.floor((count + _COUNT_SLACK) / patch) * patch, patch)


def sample_times(duration: float, count: int) -> list[float]:
    """Return openings of ``count`` equal cells of ``duration`` seconds, from 0."""
    return [duration * cell / count for cell in range(count)]


def sample_indices(timestamps: Sequence[float], duration: float, count: int) -> list[int]:
    """Return frames to take: the clip is cut into ``count`` equal cells, each shows what its opening shows.

    The frame on screen at a time is the last one that began by then. At a constant frame rate this is
    ``floor(i * N / count)``, the rule of transformers' ``Qwen2VLVideoProcessor.sample_frames``; at a
    variable one the real timestamps decide.

    ``qwen_vl_utils`` takes ``linspace(0, N - 1, count)`` instead. That spreads the frames over the whole
    clip, so that their real spacing is ``(N - 1) / N * count / (count - 1)`` times ``duration / count``,
    whereas ``second_per_grid_ts`` tells the model exactly ``duration / count`` per frame: on a clip of 4
    frames the model's clock would run 33 % slow. With cells the spacing is what the model is told.

    Args:
        timestamps: presentation times in seconds, one per source frame, ascending.
        duration: seconds from the first frame's appearance to the last one's end.
        count: frames wanted; where the source holds fewer, frames repeat.

    Returns:
        ``count`` frame numbers, ascending.

    Raises:
        ValueError: a source without length or frames, or a count below 1.
    """
    _check_source(duration, len(timestamps))
    if count < 1:
        raise ValueError(f"at least one frame must be sampled, got {count}")
    origin = timestamps[0] + _TIME_SLACK * duration / count
    return [max(bisect_right(timestamps, origin + time) - 1, 0) for time in sample_times(duration, count)]


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return frame numbers spread over the whole source, the first and the last among them.

    The i-th is ``i * (total - 1) / (count - 1)``, rounded half up. Unlike :func:`sample_indices` it heeds no
    time: it names the frames that an annotation of every frame counts.

    Args:
        total: frames of the source.
        count: frames wanted; where the source holds fewer, frames repeat. One frame is the first.

    Returns:
        ``count`` frame numbers in ``0 .. total - 1``, ascending.

    Raises:
        ValueError: a source without frames, or a count below 1.
    """
    if total < 1:
        raise ValueError(f"a clip holds at least one frame, got {total}")
    if count < 1:
        raise ValueError(f"at least one frame must be sampled, got {count}")
    gaps = max(count - 1, 1)
    return [(2 * place * (total - 1) + gaps) // (2 * gaps) for place in range(count)]


def frame_size(height: int, width: int, count: int, budget: FrameBudget, grid: PatchGrid) -> tuple[int, int]:
    """Return height and width in pixels to which each of ``count`` frames is resized.

    Sides are multiples of ``grid.spatial`` and keep the aspect ratio as nearly as these allow. A frame gets
    an even share of the budget, ``total_pixels * temporal / count``, since the frames of a temporal patch
    share their tokens; but never less than 1.05 ``min_pixels`` (the margin of ``qwen_vl_utils``, which keeps
    the two bounds apart). The rounding is that of ``smart_resize``, to the last bit: down where the cap binds
    (which may fall below ``min_pixels`` again), up where ``min_pixels`` does.

    Raises:
        VideoError: a frame without area, or more than 200 times as long as wide.
    """
    if min(height, width) < 1:
        raise VideoError(f"a frame of {width}x{height} pixels has no area")
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise VideoError(
            f"a frame of {width}x{height} pixels is more than {MAX_ASPECT_RATIO} times as long as wide; "
            "crop the video or leave it out"
        )
    side = grid.spatial
    cap = max(budget.total_pixels * grid.temporal / count, int(budget.min_pixels * 1.05))
    rows, columns = round(height / side), round(width / side)
    area = rows * columns * side * side
    if area > cap:
        shrink = math.sqrt(height * width / cap)
        rows = max(1, math.floor(height / shrink / side))
        columns = max(1, math.floor(width / shrink / side))
    elif area < budget.min_pixels:
        grow = math.sqrt(budget.min_pixels / (height * width))
        rows, columns = math.ceil(height * grow / side), math.ceil(width * grow / side)
    return rows * side, columns * side


def _check_source(duration: float, total_frames: int) -> None:
    """Raise ValueError for a source without length or frames."""
    if not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"a clip lasts a positive number of seconds, got {duration}")
    if total_frames < 1:
        raise ValueError(f"a clip holds at least one frame, got {total_frames}")
