"""The rule for dirty boxes, for all readers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vcr1.readers.annotations import Annotations, keeps_truth
from vcr1.records import Box, Tracklet
from vcr1.scoring.geometry import clip_box

SLACK = 1e-6
"""Part of the frame by which the rounding of decimals may move an edge."""
FARTHEST = 2.0
"""Largest coordinate, by magnitude, that can still be meant as a fraction of the frame."""


def corners_of(
    rectangles: Sequence[Sequence[float]], width: float, height: float
) -> list[tuple[float, float, float, float]]:
    """Return corners as fractions of the frame, of ``x, y, w, h`` in pixels; sizes are in pixels."""
    return [(x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h in rectangles]


def mend_boxes(
    corners: Sequence[Sequence[float]],
    attempt: Annotations,
    visible: Sequence[bool] = (),
    written: bool = True,
) -> Tracklet | None:
    """Return boxes of corners ``x0, y0, x1, y1`` in fractions of the frame, or None; counted in ``attempt``.

    1. A coordinate beyond `FARTHEST`, where fractions are written, counts pixels: the row is dropped,
       whatever it is read for.
    2. For training, a row with a box that is none (not finite, or reversed) or that has no area in the frame
       is dropped, and a box that reaches out of the frame is clamped to it.
    3. Where the truth stays the file's (`keeps_truth`), boxes stay as they are. One that is none becomes a
       box without area, which scores 0 against every answer.

    Args:
        corners: of the asked frames.
        attempt: the row's account.
        visible: whether the object is there in each of them; where it is not, its box is not looked at.
        written: whether the file has the fractions; else they were computed from pixels (`corners_of`).
    """
    if written and any(FARTHEST < abs(value) < math.inf for four in corners for value in four):
        attempt.drop("box_not_in_fractions", attempt.source)
        return None
    boxes, reasons, reaches_out = [], [], False
    for place, four in enumerate(corners):
        box, reason = _box(*four)
        boxes.append(box)
        if not visible or visible[place]:
            reasons += [reason] if reason else []
            reaches_out |= min(four[0], four[1], 1 - four[2], 1 - four[3]) < -SLACK
    if keeps_truth():
        odd = "box_without_area" if reasons else "reaches_out_of_the_frame" if reaches_out else None
        attempt.noticed.update([odd] if odd else [])
        return tuple(boxes)
    if reasons:
        attempt.drop(reasons[0], attempt.source)
        return None
    attempt.mended.update(["clamped_to_the_frame"] if reaches_out else [])
    return tuple(map(clip_box, boxes))


def _box(x0: float, y0: float, x1: float, y1: float) -> tuple[Box, str | None]:
    """Return a box, and what makes it unusable, if anything."""
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return Box(0.0, 0.0, 0.0, 0.0), "not_a_box"
    if x1 < x0 or y1 < y0:
        return Box(x0, y0, x0, y0), "reversed_box"
    box = Box(x0, y0, x1, y1)
    return box, None if clip_box(box).area > 0 else "box_without_area_in_the_frame"
