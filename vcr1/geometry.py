"""Algebra of time intervals, in seconds."""

from __future__ import annotations

import math

from vcr1.records import Interval


def interval_iou(a: Interval, b: Interval) -> float:
    """Intersection over union of two intervals, in 0..1.

    Two intervals that overlap have their hull as union, so one division serves; where they do not,
    the answer is 0 whatever the union. It is 0, too, where the union has no length (the same instant
    twice): an answer without length names no event.
    """
    intersection = min(a.end, b.end) - max(a.start, b.start)
    if intersection <= 0:
        return 0.0
    return intersection / (max(a.end, b.end) - min(a.start, b.start))


def clip_interval(interval: Interval, duration: float) -> Interval | None:
    """The part of an interval that lies in a video of ``duration`` seconds.

    Returns:
        The clipped interval, or None where nothing with a length is left.

    Raises:
        ValueError: a duration that is negative or not finite.
    """
    if not (math.isfinite(duration) and duration >= 0):
        raise ValueError(f"duration must be finite and not negative: {duration}")
    start, end = max(interval.start, 0.0), min(interval.end, duration)
    return Interval(start, end) if start < end else None
