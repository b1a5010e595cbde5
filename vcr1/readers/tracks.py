"""Boxes of an object's whole way, sampled to the frames that a task shows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from vcr1.errors import VideoError
from vcr1.readers.annotations import Annotations
from vcr1.records import VideoSource
from vcr1.video import current_reader, evenly_spaced, frame_times

Corners = Sequence[float]


def sample_boxes(
    boxes: Sequence[Corners],
    times: Sequence[float] | None,
    count: int,
    source: VideoSource,
    attempt: Annotations,
) -> list[Corners] | None:
    """The boxes of the ``count`` frames that the task shows; None where they cannot be told, counted.

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
    """Boxes at the ``wanted`` times; ``half`` is half a frame in seconds."""
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
    """The box at a time, on the straight line between its neighbours."""
    after = min(max(bisect_right(times, time), 1), len(times) - 1)
    first, second = boxes[after - 1], boxes[after]
    share = min(max((time - times[after - 1]) / (times[after] - times[after - 1]), 0.0), 1.0)
    for box in (first, second):  # what is no box would vanish between two that are
        if not (box[0] <= box[2] and box[1] <= box[3]):
            return box
    return [math.fsum((a * (1 - share), b * share)) for a, b in zip(first, second, strict=True)]
