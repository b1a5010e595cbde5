"""Algebra of time intervals, in seconds, and of boxes, in fractions of the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vcr1.records import Box, Interval


def interval_iou(a: Interval, b: Interval) -> float:
    """Return intersection over union of two intervals, in 0..1.

    Two intervals that overlap have their hull as union, so one division serves; where they do not,
    the answer is 0 whatever the union. It is 0, too, where the union has no length (the same instant
    twice): an answer without length names no event.
    """
    intersection = min(a.end, b.end) - max(a.start, b.start)
    if intersection <= 0:
        return 0.0
    return intersection / (max(a.end, b.end) - min(a.start, b.start))


def clip_interval(interval: Interval, duration: float) -> Interval | None:
    """Return the part of an interval that lies in a video of ``duration`` seconds.

    Returns:
        The clipped interval, or None where nothing with a length is left.

    Raises:
        ValueError: a duration that is negative or not finite.
    """
    if not (math.isfinite(duration) and duration >= 0):
        raise ValueError(f"duration must be finite and not negative: {duration}")
    start, end = max(interval.start, 0.0), min(interval.end, duration)
    return Interval(start, end) if start < end else None


def merge_intervals(intervals: Sequence[Interval]) -> list[Interval]:
    """Return the union of intervals as disjoint intervals in order of time; those that touch become one."""
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda interval: (interval.start, interval.end)):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged


def union_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Return IoU of two sets of instants, each given as a union of intervals, in 0..1.

    What is named twice counts once, and the order does not matter. As in `interval_iou`, the answer is 0
    where the union has no length; so it is where either side is empty.
    """
    shared = _shared_length(a, b)
    # The minimum for the rounding: many short pieces may sum up to more than the long one they fill.
    return min(1.0, shared / _length([*a, *b])) if shared > 0 else 0.0


def intersection_over_prediction(prediction: Sequence[Interval], truth: Sequence[Interval]) -> float:
    """Share of the predicted time that is true, in 0..1; of unions. IoP in NExT-GQA (arXiv 2309.01327).

    A prediction without length has no share, hence 0. NExT-GQA's own code gives an instant inside the truth
    1; see `vcr1.tasks.grounded_qa` for its figures.
    """
    shared = _shared_length(prediction, truth)
    return min(1.0, shared / _length(prediction)) if shared > 0 else 0.0


def _length(intervals: Sequence[Interval]) -> float:
    """Return length of a union of intervals in seconds."""
    return math.fsum(interval.length for interval in merge_intervals(intervals))


def _shared_length(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Return length in seconds of what two unions share, in one sweep over both."""
    ours, theirs = merge_intervals(a), merge_intervals(b)
    pieces: list[float] = []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        pieces.append(max(0.0, min(ours[i].end, theirs[j].end) - max(ours[i].start, theirs[j].start)))
        if ours[i].end < theirs[j].end:
            i += 1
        else:
            j += 1
    return math.fsum(pieces)


def box_iou(a: Box, b: Box) -> float:
    """Return intersection over union of two boxes, in 0..1; 0 where they share no area."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    # Areas below the smallest float are none.
    return intersection / (a.area + b.area - intersection) if intersection > 0 else 0.0


def bound_box(box: Box) -> Box:
    """The box within the frame by the rule of GOT-10k's toolkit (``got10k/utils/metrics.py``, ``rect_iou``).

    It moves the left upper corner into the frame and keeps width and height as far as the frame has room. So
    a box that begins left of the frame or above it is moved, where `clip_box` cuts it. For comparing with
    others' figures only.
    """
    x, y = min(max(box.x0, 0.0), 1.0), min(max(box.y0, 0.0), 1.0)
    width, height = min(box.x1 - box.x0, 1.0 - x), min(box.y1 - box.y0, 1.0 - y)
    return Box(x, y, x + width, y + height)


def clip_box(box: Box) -> Box:
    """Return the box with its corners moved into the frame.

    A box outside the frame becomes one without area on the border, so that a track keeps its length.
    """
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in (box.x0, box.y0, box.x1, box.y1))
    return Box(x0, y0, x1, y1)
