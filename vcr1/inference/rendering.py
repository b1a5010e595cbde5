"""A video with the answers drawn in: a bar with the named times, the boxes of a tracked object."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image, ImageDraw

from vcr1.errors import UserError
from vcr1.inference.answers import Answer
from vcr1.records import Box, Interval, VideoSource
from vcr1.records.files import replacing
from vcr1.video import GuardedReader, Timeline, read_timeline
from vcr1.video.decoding import decode_pyav

COLORS = ("#2667c9", "#e07b1f", "#2a9d5c", "#b0379b", "#c0392b", "#1aa6a6")
"""Of one answer after the other; then again from the first."""
_BAR = "#d0d0d0"
_TICK = Fraction(1, 90_000)


def render_answers(
    source: VideoSource, answers: Sequence[Answer], path: Path, reader: GuardedReader | None = None
) -> None:
    """Write a video, or the part of it that was asked about, with the answers drawn in.

    Each answer that names times has a bar along the lower edge, and the frame has its colour while it names
    the present; boxes move evenly between the frames that were asked. Frames keep their times; there is no
    sound. The file appears under its name when it is complete. One frame is held in memory at a time.

    Args:
        source: the video file.
        answers: about it.
        path: an MP4 in a folder that exists.
        reader: bounds the decoding, each frame by itself; None for the usual limits.

    Raises:
        VideoError: the video cannot be read.
        UserError: the file cannot be written.
    """
    reader = reader or GuardedReader()
    with replacing(path) as scratch:

        def render(moved: Callable[[], None]) -> None:  # runs in a child
            try:
                _render(source, answers, scratch, moved)
            except OSError as error:
                raise UserError(f"render={path}: cannot be written ({error.strerror})") from error

        reader.run(source, render)


def _render(source: VideoSource, answers: Sequence[Answer], scratch: Path, moved: Callable[[], None]) -> None:
    """Write the video to ``scratch``; call ``moved`` for each frame."""
    timeline = read_timeline(source.path)
    end = timeline.duration if source.end is None else min(source.end, timeline.duration)
    with av.open(str(scratch), "w", format="mp4") as container:
        stream: VideoStream | None = None
        for time, picture in _frames(source, timeline, end):
            moved()
            if stream is None:
                stream = _add_stream(container, picture, len(timeline.pts) / timeline.duration)
            draw_on_frame(picture, answers, time, end - source.start)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time) / _TICK), _TICK
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))


def _frames(source: VideoSource, timeline: Timeline, end: float) -> Iterator[tuple[float, Image.Image]]:
    """Yield time from the part's start in seconds, and picture, of each frame that begins in the part."""
    times = timeline.timestamps
    following = [*times[1:], timeline.duration]
    indices = [  # of frames with one time only the last one is seen
        index for index, time in enumerate(times) if source.start <= time < min(end, following[index])
    ]
    size: tuple[int, int] | None = None
    decoded = decode_pyav(Path(source.path), timeline, indices)
    for index, (pixels, height, width) in zip(indices, decoded, strict=True):
        # 4:2:0 wants even sides; the first frame's hold for all.
        size = size or (max(width // 2, 1) * 2, max(height // 2, 1) * 2)
        picture = Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy())
        yield times[index] - source.start, picture if picture.size == size else picture.resize(size)


def _add_stream(container: av.container.OutputContainer, picture: Image.Image, fps: float) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1000)
    stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = picture.size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = _TICK
    stream.codec_context.max_b_frames = 0  # as in vcr1.video.writing: lengths stay with their frames
    return stream


def draw_on_frame(picture: Image.Image, answers: Sequence[Answer], time: float, duration: float) -> None:
    """Draw what answers say of one frame into it.

    Args:
        picture: the frame; is changed.
        answers: whose times count from the start of what is drawn.
        time: of the frame, in seconds.
        duration: of what is drawn, in seconds.
    """
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    line = max(min(width, height) // 100, 2)
    timed = [answer for answer in answers if answer.spans]
    for number, answer in enumerate(answers):
        color = COLORS[number % len(COLORS)]
        if boxes := answer.boxes:
            box = box_at(boxes, answer.clip.timestamps, time)
            corners = (box.x0 * width, box.y0 * height, box.x1 * width - 1, box.y1 * height - 1)
            pen.rectangle(corners, outline=color, width=line)
        spans = answer.spans
        if not spans:
            continue
        row = timed.index(answer)
        top = height - (len(timed) - row) * 4 * line
        _bar(pen, spans, duration, (width, top, 3 * line), color)
        if any(span.start <= time < span.end for span in spans):
            inset = row * line
            edge = (inset, inset, width - 1 - inset, height - 1 - inset)
            pen.rectangle(edge, outline=color, width=line)
    if timed:
        place = round(time / duration * (width - 1))
        bottom = height - len(timed) * 4 * line
        pen.line((place, bottom - line, place, height - 1), fill="white", width=line)


def _bar(
    pen: ImageDraw.ImageDraw,
    spans: Sequence[Interval],
    duration: float,
    place: tuple[int, int, int],
    color: str,
) -> None:
    """A bar of the whole time with the spans in it; ``place``: its width, top and height in pixels."""
    width, top, thick = place
    pen.rectangle((0, top, width - 1, top + thick - 1), fill=_BAR)
    for span in spans:
        left, right = (
            round(min(max(edge / duration, 0.0), 1.0) * (width - 1)) for edge in (span.start, span.end)
        )
        pen.rectangle((left, top, right, top + thick - 1), fill=color)


def box_at(boxes: Sequence[Box], times: Sequence[float], time: float) -> Box:
    """Return where the object is at a time: moved evenly between two boxes, at rest before and after all.

    Args:
        boxes: one for each of ``times``, which ascend.
        times: in seconds.
        time: in seconds.
    """
    later = bisect_right(times, time)
    if later == 0 or later == len(times):
        return boxes[later - 1 if later else 0]
    share = (time - times[later - 1]) / (times[later] - times[later - 1])
    pairs = zip(_corners(boxes[later - 1]), _corners(boxes[later]), strict=True)
    return Box(*(before + share * (after - before) for before, after in pairs))


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1
