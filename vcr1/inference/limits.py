"""Limits of what is asked, and the frames that a question is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vcr1.errors import UserError, VideoError
from vcr1.records import VideoClip, VideoSource
from vcr1.video import FrameBudget, GuardedReader, PatchGrid

MISSING_VIDEO = "missing_video"
UNREADABLE_VIDEO = "unreadable_video"
VIDEO_TOO_LONG = "video_too_long"
ONE_FRAME = "one_frame"


@dataclass(frozen=True, slots=True)
class Limits:
    """Set what is refused, and how many questions are answered at once.

    Attributes:
        query: most characters of a question, and of its options.
        seconds: longest video, or part of one.
        together: most questions that are answered at once; each keeps the keys and values of the video.
        group: group of the config that sets them, as messages name it.

    Raises:
        UserError: a limit that is not positive.
    """

    query: int = 8192
    seconds: float = 14400.0
    together: int = 16
    group: str = "limits"

    def __post_init__(self) -> None:
        for name in ("query", "seconds", "together"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise UserError(f"{self.group}.{name}={value} must be a positive number")


class NotShown(VideoError):
    """A video of which no frames can be shown.

    Attributes:
        reason: how results count it: ``missing_video``, ``unreadable_video``, ``video_too_long``,
            ``one_frame``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def show_clip(
    reader: GuardedReader,
    source: VideoSource,
    budget: FrameBudget,
    grid: PatchGrid,
    limits: Limits,
    frames: int | None = None,
) -> VideoClip:
    """Return the frames of a video that a question is asked about.

    Args:
        reader: decodes the video.
        source: the video, or a part of it.
        budget: how much of it may be shown.
        grid: frames and pixels per vision token.
        limits: the longest video.
        frames: as many frames, evenly spaced; None leaves it to the budget.

    Raises:
        NotShown: the video is missing, cannot be decoded, is too long, or is a single frame.
    """
    try:
        clip = reader.clip(source, budget, grid, frames=frames)
    except VideoError as error:
        reason = UNREADABLE_VIDEO if Path(source.path).exists() else MISSING_VIDEO
        raise NotShown(str(error), reason) from error
    check_seconds(source, clip.duration, limits)
    if len(set(clip.indices)) < 2:
        raise NotShown(
            f"{source.path}: there is one frame to be shown, and so nothing that happens", ONE_FRAME
        )
    return clip


def check_length(source: VideoSource, limits: Limits, reader: GuardedReader) -> None:
    """Check the length of a video without decoding it.

    Raises:
        VideoError: it is not there, cannot be read, or is longer than the limit.
    """
    check_seconds(source, reader.duration(source), limits)


def check_seconds(source: VideoSource, seconds: float, limits: Limits) -> None:
    """Check the length of a video against the limit.

    Raises:
        NotShown: it is longer.
    """
    if seconds > limits.seconds:
        raise NotShown(
            f"{source.path}: lasts {seconds:.0f} s, more than {limits.group}.seconds={limits.seconds:g}: the "
            f"frames shown would lie too far apart; ask about a part of it, start=... end=..., or raise the "
            f"limit",
            VIDEO_TOO_LONG,
        )
