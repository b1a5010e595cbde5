"""Answers drawn into a video."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vcr1.errors import UserError
from vcr1.inference import Answer, Question
from vcr1.inference.rendering import box_at, draw_on_frame, render_answers
from vcr1.records import Box, GroundedAnswer, Interval, VideoClip, VideoSource
from vcr1.tasks import FREE, GroundedQATask, GroundingTask, Task, TrackingTask
from vcr1.video import FrameBudget, PatchGrid, read_clip, read_timeline, write_mp4

BLUE, ORANGE, GREY = (38, 103, 201), (224, 123, 31), (208, 208, 208)

TASKS: dict[type, Task] = {
    Interval: GroundingTask(),
    GroundedAnswer: GroundedQATask(),
    tuple: TrackingTask(),
}


def answer(value: Any, times: tuple[float, ...] = (0.0, 2.0)) -> Answer:
    clip = VideoClip(torch.empty(0), tuple(range(len(times))), times, 4.0, 16)
    tasks: dict[type, Task] = {
        Interval: GroundingTask(),
        GroundedAnswer: GroundedQATask(),
        tuple: TrackingTask(),
    }
    question = Question("q", VideoSource("a.mp4"), "?", tasks.get(type(value), FREE))
    return Answer(question, "", value, clip, 1, False)


def test_a_box_moves_evenly_between_the_asked_frames() -> None:
    boxes, times = (Box(0, 0, 0.2, 0.2), Box(0.4, 0, 0.8, 0.2)), (1.0, 3.0)
    assert box_at(boxes, times, 0.0) == boxes[0]
    assert box_at(boxes, times, 1.0) == boxes[0]
    assert box_at(boxes, times, 2.0) == Box(0.2, 0, 0.5, 0.2)
    assert box_at(boxes, times, 3.0) == boxes[1]
    assert box_at(boxes, times, 9.0) == boxes[1]


def test_a_bar_shows_the_named_times() -> None:
    picture = Image.new("RGB", (201, 200))
    draw_on_frame(
        picture, [answer(Interval(1.0, 2.0))], time=3.0, duration=4.0
    )  # lines of 2 pixels, a bar of 6 from 192
    assert [picture.getpixel((x, 195)) for x in (25, 75, 125)] == [GREY, BLUE, GREY]
    assert picture.getpixel((150, 195)) == (255, 255, 255)  # now
    assert picture.getpixel((100, 0)) == (0, 0, 0)  # no frame around it now
    draw_on_frame(picture, [answer(Interval(1.0, 2.0))], time=1.0, duration=4.0)
    assert picture.getpixel((100, 0)) == BLUE


def test_several_answers_have_bars_and_colours_of_their_own() -> None:
    picture = Image.new("RGB", (201, 200))
    grounded = answer(GroundedAnswer("A", (Interval(0, 1), Interval(3, 9))))  # reaches beyond the end
    draw_on_frame(picture, [answer(Interval(1.0, 2.0)), answer("a letter"), grounded], time=2.5, duration=4.0)
    upper, lower = ([picture.getpixel((x, y)) for x in (25, 75, 175)] for y in (187, 195))
    assert upper == [GREY, BLUE, GREY]
    assert lower == [(42, 157, 92), GREY, (42, 157, 92)]  # the third answer's


def test_a_video_is_written_with_its_times(tmp_path: Path) -> None:
    frames = np.zeros((16, 64, 66, 3), np.uint8)
    write_mp4(tmp_path / "in.mp4", frames, fps=4)
    boxes = (Box(0.0, 0.0, 0.5, 0.5), Box(0.5, 0.5, 1.0, 1.0))
    out = tmp_path / "out.mp4"
    source = VideoSource(str(tmp_path / "in.mp4"))
    render_answers(source, [answer(boxes, times=(0.0, 3.75))], out)
    assert read_timeline(out).timestamps == read_timeline(source.path).timestamps
    from_part = tmp_path / "part.mp4"
    render_answers(VideoSource(source.path, 1.0, 3.0), [answer(Interval(0, 1))], from_part)
    assert read_timeline(from_part).timestamps == [0.25 * number for number in range(8)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "part.mp4"]


def test_frames_are_drawn_as_they_are_presented(tmp_path: Path) -> None:
    path, out = tmp_path / "in.avi", tmp_path / "out.mp4"  # AVI states no presentation times
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4, options={"bf": "2", "b": "800k"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for level in range(20, 180, 10):
            pixels = np.full((64, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    render_answers(VideoSource(str(path)), [], out)
    clip = read_clip(out, FrameBudget(fps=4, min_pixels=784, total_pixels=784 * 64), PatchGrid())
    assert clip.frames.shape[-1] == 2 * clip.frames.shape[-2]
    assert clip.frames.float().mean((1, 2, 3)).tolist() == pytest.approx(range(20, 180, 10), abs=4)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_mp4(tmp_path / "in.mp4", np.zeros((8, 64, 64, 3), np.uint8), fps=4)
    with pytest.raises(UserError, match=r"^render=.*gone/out\.mp4: cannot be written"):
        render_answers(VideoSource(str(tmp_path / "in.mp4")), [], tmp_path / "gone" / "out.mp4")
