"""Decoding the wanted frames of a file with PyAV, each checked to be the one presented at its time.

A frame that no wanted one depends on is not decoded: packets are passed over up to the next one at which
decoding may begin (``Timeline.entries``). Nothing is taken on trust then: the first frame that comes out must
be the entry's own key frame, times must ascend, frames before the entry's time are dropped (they refer to
what was passed over), and a wanted frame must come out before any later one. Where one of these fails, the
file is decoded from its first key frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from vcr1.errors import VideoError
from vcr1.video.opening import open_video
from vcr1.video.timeline import Entry, Timeline

_WORTH = 4
"""Packets that must be saved for the decoder to begin anew: it then has to fill its delay again."""

_CUT = "begins between two key frames, as a cut without encoding leaves it"
_CUT_ANEW = "cut it at a key frame, or encode the cut anew"


class Pictures(NamedTuple):
    """Frames of one size.

    Attributes:
        pixels: ``[n, 3, H, W]`` uint8 RGB, upright.
        height: as presented, in pixels.
        width: as presented, in pixels of the same length: other than W where those of the file are not
            square.
    """

    pixels: Tensor
    height: int
    width: int


def decode_pyav(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Pictures]:
    """Give the wanted frames one by one.

    Args:
        path: the file.
        timeline: its frames.
        indices: numbers of wanted frames, ascending, none twice.

    Raises:
        VideoError: a frame that cannot be decoded, or frames that do not come in the order of their times.
    """
    if not indices:
        return
    picture = partial(_picture, timeline, VideoReformatter())
    with open_video(path) as (container, stream):
        if timeline.counted:
            frames = _count(path, container, stream, timeline, indices)
            yield from map(picture, frames)
            return
        wanted = deque(timeline.pts[index] for index in indices)
        try:
            for frame in _match(container, stream, timeline.entries, wanted):
                yield picture(frame)
        except _NotFound:
            pass
    if not wanted:
        return
    with open_video(path) as (container, stream):  # once more, and nothing passed over
        try:
            for frame in _match(container, stream, timeline.entries[:1], wanted):
                yield picture(frame)
        except _NotFound as reason:
            raise VideoError(_explain(path, timeline, wanted[0], str(reason))) from reason


class _NotFound(Exception):
    """A wanted frame did not come out as it should; the message says how."""


def _match(
    container: InputContainer, stream: VideoStream, entries: Sequence[Entry], wanted: deque[int]
) -> Iterator[av.VideoFrame]:
    """Yield frames whose times are wanted; each is taken off ``wanted`` as it is given.

    Raises:
        _NotFound: one that does not come out.
    """
    codec = stream.codec_context
    codec.thread_count = 1  # the data loader's workers are the parallelism
    entry = following = _entry(entries, wanted[0])
    latest: int | None = None  # time of the last frame since the entry
    for number, packet in enumerate(container.demux(stream)):
        if number < entry.packet:
            continue
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            raise _NotFound(error.strerror or "the decoder fails") from error
        for frame in frames:
            assert isinstance(frame, av.VideoFrame)
            if frame.pts is None or (latest is not None and frame.pts <= latest):
                raise _NotFound("its frames do not come in the order of their times")
            if frame.pts < entry.pts:
                continue
            if (
                latest is None
                and entry is not entries[0]
                and not (frame.pts == entry.pts and frame.key_frame)
            ):
                raise _NotFound("a key frame is none")
            latest = frame.pts
            if latest > wanted[0]:
                raise _NotFound("no picture comes of it")
            if latest == wanted[0]:
                if frame.is_corrupt:
                    raise _NotFound("it is damaged")
                wanted.popleft()
                yield frame
                if not wanted:
                    return
                following = _entry(entries, wanted[0])
        if following.packet > number + _WORTH:
            entry, latest = following, None
            codec.flush_buffers()
    raise _NotFound("no picture comes of it")


def _entry(entries: Sequence[Entry], pts: int) -> Entry:
    """The last entry from which the frame of a time can be decoded; the first one, if there is none."""
    return entries[max(bisect_right(entries, pts, key=attrgetter("pts")) - 1, 0)]


def _count(
    path: Path, container: InputContainer, stream: VideoStream, timeline: Timeline, indices: Sequence[int]
) -> Iterator[av.VideoFrame]:
    """Yield frames whose numbers are wanted, found by counting all that come out.

    Raises:
        VideoError: other frames came out than the file has times for, so that none has a sure time.
    """
    if timeline.entries[0].packet:  # what comes out for the packets before differs from decoder to decoder
        raise VideoError(f"{path}: {_CUT}, so that its frames cannot be counted; {_CUT_ANEW}")
    stream.codec_context.thread_count = 1
    wanted, total = set(indices), 0
    for frame in container.decode(stream):
        if total in wanted:
            if frame.is_corrupt:
                raise VideoError(f"{path}: frame {total} is damaged; fetch it again")
            yield frame
        total += 1
    if total != len(timeline.pts):
        raise VideoError(
            f"{path}: gives {total} frames for {len(timeline.pts)} times, so no frame has a sure time; "
            "write it anew (ffmpeg -i OLD NEW.mp4), or fetch it again"
        )


def _explain(path: Path, timeline: Timeline, pts: int, reason: str) -> str:
    """Return why the frame of a time cannot be shown."""
    at = float((pts - timeline.pts[0]) * timeline.time_base)
    first = float((timeline.entries[0].pts - timeline.pts[0]) * timeline.time_base)
    if at < first:
        return f"{path}: {_CUT}, and its first {first:.2f} s cannot be decoded; {_CUT_ANEW}"
    return f"{path}: the frame at {at:.3f} s cannot be decoded ({reason}); fetch it again"


def _picture(timeline: Timeline, reformatter: VideoReformatter, frame: av.VideoFrame) -> Pictures:
    """Return a frame as it is presented."""
    # One reformatter for all frames, without threads: FFmpeg's converter costs more to make than to use.
    rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray().astype(np.uint8, copy=False)
    pixels, turned = upright(rgb, _display_matrix(frame))
    height, width = pixels.shape[:2]
    aspect = 1 / timeline.pixel_aspect if turned else timeline.pixel_aspect
    if aspect >= 1:  # the shorter side of a pixel counts 1, so that no line is lost
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    return Pictures(tensor, height, width)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d) from a picture to the screen: x' = ax + cy, y' = bx + dy."""
    side: Any = frame.side_data  # its types know no matrix
    if (data := side.get(Type.DISPLAYMATRIX)) is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def upright(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Turn and mirror a picture as its display matrix says.

    Of other angles the nearest of the eight ways that keep the axes is taken.

    Args:
        pixels: ``[H, W, C]``.
        matrix: ``(a, b, c, d)``: the pixel at (x, y) is shown at (ax + cy, bx + dy), but for a shift.

    Returns:
        The picture, and whether its width became its height.
    """
    a, b, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels, (a, d) = pixels.transpose(1, 0, 2), (c, b)
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1], turned
