"""Opening a video file for reading: the only call of ``av.open`` that reads.

A name is always the name of a local file. FFmpeg would take ``http://…``, ``pipe:`` or ``concat:…`` for a
protocol and ``x_%03d.png`` for a series of pictures, and some formats (playlists above all) name further
files or addresses. So every path is handed over as an absolute ``file:`` address, only the formats of
``FORMATS`` are tried, and nothing but local files may be opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vcr1.errors import VideoError

RAW_FORMATS = frozenset({"h264", "hevc", "mpegvideo", "m4v", "av1", "obu", "h263", "vc1", "mjpeg"})
"""Streams without a container. Most state no times and are refused, but for that reason."""

FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "mpegts", "mpeg", "ogg", "gif", "ivf", "nut"),
    *("mxf", "rm", "dv", "yuv4mpegpipe"),
    *sorted(RAW_FORMATS),
)
"""FFmpeg's names of the formats that are read. Pictures, playlists and scripts are not among them."""

_ALLOWED = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
_AS_STATED = {"fflags": "nofillin"}
"""FFmpeg would guess the times that a file does not state, often in decoding order."""

# Titles in odd encodings must not cost the video; PyAV 19 is lenient without being asked.
_LENIENT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


@contextmanager
def open_video(path: Path, *, guess_times: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and choose its main video stream; FFmpeg's errors become VideoError.

    A file may hold several video streams (a small preview beside the real one): FFmpeg's choice of the best
    is taken (flagged as default, then by bit rate), not ``streams.video[0]``.

    Args:
        path: the file, under any name that the system allows.
        guess_times: let FFmpeg fill in times and lengths that the file does not state.

    Raises:
        VideoError: a file that is missing, empty or damaged, is not of ``FORMATS``, or holds no video.
    """
    check_file(path)
    options = _ALLOWED if guess_times else _ALLOWED | _AS_STATED
    try:
        with av.open(f"file:{path.absolute()}", options=options, **_LENIENT) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise VideoError(f"{path}: the file holds no video stream; leave it out of the annotations")
            if stream.codec_context is None:
                raise VideoError(f"{path}: the codec is unknown to FFmpeg; convert the file to H.264")
            yield container, stream
    except av.error.ArgumentError as error:
        raise VideoError(
            f"{path}: not a readable video of a format that vcr1 opens (MP4, MOV, Matroska, WebM, AVI, FLV, "
            "WMV, MPEG, Ogg, GIF and some more; no pictures or playlists); convert it, or fetch it again"
        ) from error
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video ({error.strerror}); fetch it again") from error


def check_file(path: Path) -> None:
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
