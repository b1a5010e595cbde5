"""Which frames of a source belong to a part of it, and when each is on screen there. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from vcr1.errors import VideoError
from vcr1.records import VideoSource

_SLACK = 1e-6
"""Seconds by which a border may miss a frame's beginning and still be meant as it: far above the error of
float64, far below the length of a frame."""


@dataclass(frozen=True, slots=True)
class Part:
    """The frames of a source that are on screen between two times.

    Attributes:
        first: number of its first frame in the source: the one on screen as the part begins.
        times: presentation times of its frames in seconds from the part's beginning; the first one may have
            begun before, at a time below 0.
        duration: its length in seconds.
        total_frames: its frames, those counted by their share that lie in it only partly.
    """

    first: int
    times: tuple[float, ...]
    duration: float
    total_frames: float

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Return since when each frame is on screen, in seconds from the part's beginning."""
        return tuple(max(time, 0.0) for time in self.times)


def cut(source: VideoSource, timestamps: list[float], duration: float) -> Part:
    """Return the part of a source that is asked for; all of it where no start or end is given.

    A frame belongs to it if it is on screen within ``[start, end)``: also the one that is there as the part
    begins, though it began before. An end after the source's own is the source's own.

    Args:
        source: whose ``start`` and ``end`` count.
        timestamps: presentation times of all its frames in seconds, ascending from 0.
        duration: seconds from 0 to the last frame's end.

    Raises:
        VideoError: a part that begins where the source has ended.
    """
    start, end = source.start, duration if source.end is None else min(source.end, duration)
    if end - start <= 2 * _SLACK:
        raise VideoError(
            f"{source.path}: the part from {start:g} s lies beyond the end of the video, which lasts "
            f"{duration:.3f} s; mend the annotation or fetch the video again"
        )
    # Of frames with equal times only the last one stays on screen; the whole source has all of them.
    first = bisect_right(timestamps, start + _SLACK) - 1 if start > 0 else 0
    stop = max(bisect_left(timestamps, end - _SLACK), first + 1)
    ends = [*timestamps[first + 1 : stop + 1], duration]
    head = (start - timestamps[first]) / (ends[0] - timestamps[first]) if start > 0 else 0.0
    tail = (ends[stop - first - 1] - end) / (ends[stop - first - 1] - timestamps[stop - 1])
    return Part(
        first=first,
        times=tuple(time - start for time in timestamps[first:stop]),
        duration=end - start,
        total_frames=stop - first - max(head, 0.0) - max(tail, 0.0),
    )
