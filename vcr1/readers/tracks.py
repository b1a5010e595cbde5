"""Boxes of an object's whole way, sampled to the frames that a task shows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from vcr1.errors import UserError, VideoError
from vcr1.readers.annotations import Annotations
from vcr1.readers.boxes import corners_of, mend_boxes
from vcr1.readers.rows import Footage, Row, are_numbers, as_float
from vcr1.records import Box, VideoSource
from vcr1.video import current_reader, evenly_spaced, frame_times

Corners = Sequence[float]


def sample_boxes(
    boxes: Sequence[Corners],
    times: Sequence[float] | None,
    count: int,
    source: VideoSource,
    attempt: Annotations,
) -> list[Corners] | None:
    """Return the boxes of the ``count`` frames that the task shows; None where they cannot be told, counted.

    Without ``times``, as many boxes as frames are shown are taken as they are. As many as the video, or the
    part of it, has frames are one for each frame, and those of the shown frames are taken. Any other number
    stands for no known frames, and the row is dropped.

    With ``times``, each shown frame gets the box of its own time. Between two stated times the box lies on
    the straight line between the two boxes, which is counted where a shown frame is more than half a frame
    off any stated time. Nothing is guessed before the first and after the last time: where a shown frame lies
    more than half a frame outside, the row is dropped.

    Args:
        boxes: corners, in order of time.
        times: of the boxes, ascending, in seconds from the start of the video or of its part; None where the
            row does not state them.
        count: how many frames are shown, evenly spaced, the first and the last among them.
        source: the video or its part; read only where the boxes are not as many as the shown frames.
        attempt: the row's account.
    """
    if times is None and len(boxes) == count:
        return list(boxes)
    try:
        frames = current_reader().run(source, lambda moved: frame_times(source))
    except VideoError as error:
        attempt.drop("unreadable_video", attempt.source, detail=str(error))
        return None
    shown = evenly_spaced(len(frames), count)
    if times is not None:
        half = (frames[-1] - frames[0]) / max(len(frames) - 1, 1) / 2 + 1e-6
        return _at([frames[place] for place in shown], boxes, times, half, attempt)
    if len(boxes) == len(frames):
        return [boxes[place] for place in shown]
    attempt.drop(
        "other_number_of_boxes",
        attempt.source,
        detail=f"{len(boxes)} boxes, but the task shows {count} frames, and {source.path} has {len(frames)} "
        "there; give as many boxes as either, or their times in box_times",
    )
    return None


def _at(
    wanted: Sequence[float],
    boxes: Sequence[Corners],
    times: Sequence[float],
    half: float,
    attempt: Annotations,
) -> list[Corners] | None:
    """Return boxes at the ``wanted`` times; ``half`` is half a frame in seconds."""
    if wanted[0] < times[0] - half or wanted[-1] > times[-1] + half:
        attempt.drop(
            "boxes_do_not_cover_the_video",
            attempt.source,
            detail=f"the shown frames lie from {wanted[0]:.2f} to {wanted[-1]:.2f} s, but box_times from "
            f"{times[0]:.2f} to {times[-1]:.2f} s",
        )
        return None
    if any(min(abs(time - stated) for stated in times) > half for time in wanted):
        attempt.mended["boxes_interpolated"] += 1
    return [_between(time, boxes, times) for time in wanted]


def _between(time: float, boxes: Sequence[Corners], times: Sequence[float]) -> Corners:
    """Return the box at a time, on the straight line between its neighbours."""
    after = min(max(bisect_right(times, time), 1), len(times) - 1)
    first, second = boxes[after - 1], boxes[after]
    share = min(max((time - times[after - 1]) / (times[after] - times[after - 1]), 0.0), 1.0)
    for box in (first, second):  # what is no box would vanish between two that are
        if not (box[0] <= box[2] and box[1] <= box[3]):
            return box
    return [math.fsum((a * (1 - share), b * share)) for a, b in zip(first, second, strict=True)]


def read_boxes(row: Row, footage: Footage | None, count: int, attempt: Annotations) -> tuple[Box, ...] | None:
    """Return the boxes of a line of JSON, one for each of ``count`` shown frames.

    None where they are of no use, counted in ``attempt``, or where there is no video.

    Raises:
        UserError: a field is missing or has a wrong form.
    """
    corners, times = _corners(row, attempt), _box_times(row)
    if corners is None or footage is None:
        return None
    if times is not None and len(times) != len(corners):
        raise UserError(
            f"{row.place}: {len(corners)} boxes, but {len(times)} box_times; give one for each box"
        )
    source = footage[0] if isinstance(footage[0], VideoSource) else VideoSource(footage[0])
    shown = sample_boxes(corners, times, count, source, attempt)
    return None if shown is None else mend_boxes(shown, attempt, written="boxes" in row.content)


def _corners(row: Row, attempt: Annotations) -> list[Sequence[float]] | None:
    """Return a row's boxes as corners in fractions; None for a frame without a size, which is counted."""
    sizes = [name for name in ("xywh", "width", "height") if name in row.content]
    if "boxes" in row.content or not sizes:
        if sizes:
            raise UserError(f"{row.place}: has 'boxes' and also {sizes[0]!r}; keep fractions or pixels")
        form = "[[x0, y0, x1, y1], ...], or pixels as xywh with width and height"
        corners: list[Sequence[float]] = list(row.numbers("boxes", 4, form))
    else:
        rectangles = row.numbers("xywh", 4, "[[x, y, w, h], ...] in pixels, with width and height")
        width, height = row.number("width"), row.number("height")
        if width is None or height is None:
            raise row.fault("width" if width is None else "height", "of the frame in pixels")
        if not (0 < width < math.inf and 0 < height < math.inf):
            attempt.drop("frame_size_not_positive", attempt.source)
            return None
        corners = list(corners_of(rectangles, width, height))
    if len(corners) < 2:
        raise row.fault("xywh" if sizes else "boxes", "two boxes or more")
    return corners


def _box_times(row: Row) -> list[float] | None:
    """Return the times of a row's boxes in seconds, ascending; None where it does not state them."""
    if "box_times" not in row.content:
        return None
    values, form = row.content["box_times"], "seconds in ascending order, one for each box"
    if not isinstance(values, list) or not are_numbers(values, len(values)):
        raise row.fault("box_times", form)
    times = [as_float(value) for value in values]
    if not all(map(math.isfinite, times)) or any(a >= b for a, b in pairwise(times)):
        raise row.fault("box_times", form)
    return times
