"""When each frame of a video file is on screen, read from its packets without decoding a picture.

This is the one place that opens a file for the first time, so whatever can be wrong with a file's outside
(missing, a folder, empty, not a video, cut short) is named here, before a decoder meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vcr1.errors import VideoError


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of a video stream in time.

    Attributes:
        pts: presentation times of all frames in units of ``time_base``, ascending.
        time_base: seconds per unit.
        duration: seconds from the first frame's appearance to the last one's end.
        frame_bytes: bytes of one decoded RGB frame of the source.
    """

    pts: tuple[int, ...]
    time_base: Fraction
    duration: float
    frame_bytes: int

    @property
    def timestamps(self) -> list[float]:
        """Presentation times in seconds, counted from the first frame."""
        return [float((pts - self.pts[0]) * self.time_base) for pts in self.pts]


# Titles in odd encodings must not cost the video; PyAV 19 is lenient without being asked.
_LENIENT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file's container and its main video stream; FFmpeg's errors become VideoError.

    A file may hold several video streams (a small preview beside the real one): FFmpeg's choice of the best
    is taken (flagged as default, then by bit rate), not ``streams.video[0]``.

    Raises:
        VideoError: a file that is missing, empty or damaged, or holds no video.
    """
    _check_file(path)
    try:
        with av.open(str(path), **_LENIENT) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise VideoError(f"{path}: the file holds no video stream; leave it out of the annotations")
            if stream.codec_context is None:
                raise VideoError(f"{path}: the codec is unknown to FFmpeg; convert the file to H.264")
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video ({error.strerror}); fetch it again") from error


def read_timeline(path: str | Path) -> Timeline:
    """Presentation times of all frames, from the packets alone.

    Raises:
        VideoError: a file that is missing, empty, damaged, cut short, or holds no video or no frame.
    """
    path = Path(path)
    with open_video(path) as (container, stream):
        _check_complete(path, stream)
        frames: list[tuple[int, int]] = []
        for packet in container.demux(stream):
            # AVI states decoding times only; sorted, they are the presentation times but for a shift.
            shown = packet.dts if packet.pts is None else packet.pts
            # Discarded packets lie before the start that an edit list gives; the last, empty one flushes.
            if shown is not None and not packet.is_discard:
                frames.append((shown, packet.duration or 0))
        if not frames or stream.time_base is None:
            raise VideoError(f"{path}: the video stream holds no frame; fetch the file again")
        frames.sort()
        pts = tuple(pts for pts, _ in frames)
        return Timeline(
            pts=pts,
            time_base=stream.time_base,
            duration=_duration(path, pts, frames[-1][1], stream),
            frame_bytes=3 * max(stream.height, 1) * max(stream.width, 1),
        )


def _check_file(path: Path) -> None:
    """Raise VideoError where the path is not a file with content."""
    try:
        if not path.exists():
            raise VideoError(f"{path}: no such file; check data.root and the annotation's video name")
        if not path.is_file():
            raise VideoError(
                f"{path}: not a file; the annotation must name a video file, or give the frames per second "
                "(fps) of a folder of frames"
            )
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty; fetch it again")
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte in the name
        raise VideoError(f"{path!s}: cannot be opened ({error})") from error


def _check_complete(path: Path, stream: VideoStream) -> None:
    """Raise VideoError where the stream's index points past the file's end: a broken download.

    Without this, a file cut short reads as a shorter video, whose truth lies where no frame is.
    Containers without an index at hand (Matroska often) pass.
    """
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    size = path.stat().st_size
    if end > size:
        raise VideoError(f"{path}: cut short, {size} bytes of at least {end}; fetch it again")


def _duration(path: Path, pts: tuple[int, ...], last: int, stream: VideoStream) -> float:
    """Seconds from the first frame's appearance to the last one's end.

    The last frame lasts as long as its packet says, else as long as the mean of the others, else (a single
    frame) as the stream's frame rate says.

    Raises:
        VideoError: a single frame of unknown length.
    """
    assert stream.time_base is not None
    span = pts[-1] - pts[0]
    if last > 0:
        return float((span + last) * stream.time_base)
    if span > 0:
        return float(span * stream.time_base * Fraction(len(pts), len(pts) - 1))
    if stream.average_rate:
        return float(1 / stream.average_rate)
    raise VideoError(f"{path}: one frame of unknown length; leave the file out of the annotations")
