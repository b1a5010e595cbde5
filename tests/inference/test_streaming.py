"""Answers as streams, and as pictures; on a model that is none."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread, active_count
from typing import Any, cast

import matplotlib.image
import numpy as np
import pytest
import torch

from vcr1.errors import VideoError
from vcr1.inference import Answer, Asker, CluePlan, Look, Question, draw_answer, first_frame, stream_answer
from vcr1.policy import Sampling
from vcr1.records import Box, Interval, VideoClip, VideoSource
from vcr1.tasks import GroundingTask, TrackingTask
from vcr1.video import FrameBudget, GuardedReader, write_mp4

GROUNDING = GroundingTask()


def answer(question: Question, text: str, value: Any = None, frames: int = 8) -> Answer:
    clip = VideoClip(torch.empty(0), tuple(range(frames)), tuple(map(float, range(frames))), 8.0, frames)
    return Answer(question, text, value, clip, len(text), False)


class Speller:
    """Answers with the letters of a word, one by one, until it is told to fail."""

    def __init__(self, error: Exception | None = None, rest: Callable[[], Any] = lambda: None) -> None:
        self.alone = Lock()
        self.error, self.rest, self.said = error, rest, ""

    def ask(self, questions: list[Question], watch: Callable[[str], None]) -> list[Answer]:
        for letter in "red\N{REPLACEMENT CHARACTER}":
            self.said += letter
            watch(self.said)
            self.rest()
        if self.error:
            raise self.error
        return [answer(questions[0], "red!")]


QUESTION = Question("q", VideoSource("a.mp4"), "what?")


def stream(speller: Speller) -> Iterator[str | Answer]:
    return stream_answer(cast(Asker, speller), QUESTION, CluePlan())


def test_a_stream_is_the_growing_text_and_then_the_answer() -> None:
    *grown, last = stream(Speller())
    assert grown == ["r", "re", "red", "red"]  # half a character is not shown
    assert isinstance(last, Answer)
    assert last.text == "red!"


def test_what_goes_wrong_is_raised_where_the_stream_is_read() -> None:
    found = []
    with pytest.raises(VideoError, match=r"a\.mp4: broken"):
        found.extend(stream(Speller(VideoError("a.mp4: broken"))))
    with pytest.raises(ZeroDivisionError):
        found.extend(stream(Speller(rest=lambda: 1 / 0)))


def test_a_stream_that_is_closed_stops_the_model() -> None:
    threads, go_on = active_count(), Event()
    speller = Speller(rest=lambda: go_on.wait(10))
    one = cast(Any, stream(speller))
    assert next(one) == "r"
    go_on.set()
    one.close()
    assert speller.said in {"re", "red", "red\N{REPLACEMENT CHARACTER}"}
    assert not speller.alone.locked()
    assert active_count() == threads


def test_streams_wait_for_each_other() -> None:
    speller = Speller()
    speller.alone.acquire()
    one = stream(speller)
    texts: list[str | Answer] = []
    reader = Thread(target=lambda: texts.extend(one))
    reader.start()
    time.sleep(0.05)
    assert speller.said == ""
    speller.alone.release()
    reader.join(10)
    assert len(texts) == 5


class Looker(Asker):
    """Answers each look with the same span."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None), {"grounding": FrameBudget()}, Sampling())

    def ask(self, questions: Any, budget: Any = None, watch: Any = None) -> list[Answer]:
        watch("1.0 to")
        given = answer(questions[0], "1.0 to 2.0", Interval(1.0, 2.0))
        look = Look(Interval(0.0, 4.0), 8, 4, given.text, (Interval(1.0, 2.0),))
        return [replace(given, looks=(look,))]


def test_each_look_is_streamed(video: VideoSource) -> None:
    question = Question("q", video, "when?", GROUNDING)
    *grown, last = stream_answer(Looker(), question, CluePlan(rounds=1))
    assert isinstance(last, Answer)
    assert grown == ["1.0 to"] * len(last.looks)
    assert last.stopped


# ------------------------------------------------------------------------------------------ pictures


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> VideoSource:
    """Four seconds, black and then white."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    frames = np.zeros((16, 64, 96, 3), np.uint8)
    frames[8:] = 255
    write_mp4(path, frames, fps=4)
    return VideoSource(str(path))


def drawn(path: Path, given: Answer) -> np.ndarray:
    """Which pixels of the picture are blue, as answers are; all else in it is grey."""
    draw_answer(given, path / "answer.png", GuardedReader())
    picture = matplotlib.image.imread(path / "answer.png")
    return np.asarray(picture[..., 2] - picture[..., 0] > 0.2)


def test_named_times_are_a_bar(video: VideoSource, tmp_path: Path) -> None:
    grounding = Question("q", video, "when?", GROUNDING)
    half, whole = (
        np.flatnonzero(drawn(tmp_path, answer(grounding, "", Interval(0.0, end))).any(0))
        for end in (2.0, 4.0)
    )
    assert half[0] == pytest.approx(whole[0], abs=1)
    assert (half[-1] - half[0]) / (whole[-1] - whole[0]) == pytest.approx(0.5, abs=0.01)
    assert not drawn(tmp_path, answer(Question("q", video, "what?"), "a text", "a text")).any()


def test_boxes_are_drawn_into_the_asked_frames_four_in_a_row(video: VideoSource, tmp_path: Path) -> None:
    tracking = Question("q", video, "it", TrackingTask(), Box(0.2, 0.2, 0.8, 0.8))
    picture = drawn(tmp_path, answer(tracking, "", (Box(0.2, 0.2, 0.8, 0.8),) * 8))
    height, width = picture.shape
    assert width == 4 * 1.2 * 110
    for row in (picture[: height // 2], picture[height // 2 : height - 40]):
        line = row.sum(0) > 20
        assert (line[1:] & ~line[:-1]).sum() == 8  # left and right of four boxes


def test_the_first_frame_of_a_part(video: VideoSource) -> None:
    assert first_frame(video, GuardedReader()).max() < 30
    part = first_frame(VideoSource(video.path, 2.0), GuardedReader())
    assert part.min() > 220
    assert part.shape[1] / part.shape[0] == pytest.approx(1.5, abs=0.1)
    assert part.dtype == np.uint8
