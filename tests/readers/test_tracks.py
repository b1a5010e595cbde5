"""Boxes of one's own tracks, for each frame or with times, sampled to the frames that the task shows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcr1.errors import UserError
from vcr1.readers import Annotations, Purpose, read_jsonl, reading_for
from vcr1.tasks import TrackingTask
from vcr1.video import FrameBudget, PatchGrid, evenly_spaced, read_clip, write_mp4


def box(x: float) -> list[float]:
    return [x, 0.1, x + 0.1, 0.5]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 31 frames, 10 a second: the first at 0 s, the last at 3 s."""
    folder = tmp_path_factory.mktemp("videos")
    write_mp4(folder / "a.mp4", np.zeros((31, 56, 56, 3), np.uint8), fps=10)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def read(videos: Path, **fields: Any) -> Annotations:
    """What is read of a line with these fields, ``boxes_`` being its boxes, and of a plain one."""
    own = {name.rstrip("_"): value for name, value in fields.items()}
    rows = [{"video": "a", "query": "it"} | own, {"video": "a", "query": "it", "boxes": [box(0)] * 4}]
    (videos / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return read_jsonl(str(videos / "a.jsonl"), str(videos), TrackingTask(boxes=4))


def lefts(found: Annotations) -> list[float]:
    assert len(found.samples) == 2, str(found)
    return [round(one.x0, 6) for one in found.samples[0].target]


def track(count: int) -> list[list[float]]:
    """Boxes that move to the right by 0.01 of the frame each."""
    return [box(number / 100) for number in range(count)]


def test_as_many_boxes_as_shown_frames_are_taken_as_they_are(videos: Path) -> None:
    found = read(videos, video="broken", boxes_=track(4))  # the video is not even opened
    assert lefts(found) == [0, 0.01, 0.02, 0.03]


def test_one_box_for_each_frame(videos: Path) -> None:
    found = read(videos, boxes_=track(31))
    assert lefts(found) == [0, 0.1, 0.2, 0.3]  # frames 0, 10, 20, 30
    clip = read_clip(str(videos / "a.mp4"), FrameBudget(), PatchGrid(), frames=4)
    assert [round(100 * left) for left in lefts(found)] == list(clip.indices) == evenly_spaced(31, 4)
    assert found.mended == {}


def test_one_box_for_each_frame_of_a_part(videos: Path) -> None:
    # From 1.0 to 2.0 s lie frames 10 to 19; of ten, four are 0, 3, 6 and 9.
    assert lefts(read(videos, start=1.0, end=2.0, boxes_=track(10))) == [0, 0.03, 0.06, 0.09]


def test_boxes_with_times_are_read_at_the_shown_frames(videos: Path) -> None:
    exact = read(videos, boxes_=track(4), box_times=[0, 1, 2, 3])
    assert (lefts(exact), exact.mended) == ([0, 0.01, 0.02, 0.03], {})
    # The shown frames lie at 0, 1, 2 and 3 s. By hand: at 1 s, a quarter of the way from 0.5 to 2.5 s.
    found = read(videos, boxes_=[box(0), box(0.1), box(0.5), box(0.7)], box_times=[0, 0.5, 2.5, 3])
    assert lefts(found) == [0, 0.2, 0.4, 0.7]
    assert found.mended == {"boxes_interpolated": 1}
    # Times of a part count from its start.
    part = read(videos, start=1.0, boxes_=[box(0), box(0.2)], box_times=[0, 2])
    assert lefts(part) == [0, pytest.approx(0.07), pytest.approx(0.13), 0.2]  # frames 0, 7, 13 and 20


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        (
            {"boxes_": track(3)},
            "other_number_of_boxes",
            "3 boxes, but .* shows 4 frames, and .* has 31",
        ),
        ({"boxes_": track(30)}, "other_number_of_boxes", "or their times in box_times"),
        (
            {"boxes_": track(2), "box_times": [0, 2.5]},
            "boxes_do_not_cover_the_video",
            "shown frames lie from 0.00 to 3.00 s, but box_times from 0.00 to 2.50 s",
        ),
        ({"boxes_": track(2), "box_times": [0.2, 3]}, "boxes_do_not_cover_the_video", "from 0.20 to 3.00 s"),
        ({"boxes_": track(3), "video": "broken"}, "unreadable_video", "broken.mp4"),
        ({"boxes_": [box(0), box(0.4)], "video": "gone"}, "missing_video", "tried"),
        ({"boxes_": [box(0), [0.5, 0, 0.4, 1], box(0)], "box_times": [0, 1.5, 3]}, "reversed_box", ""),
    ],
)
def test_boxes_of_no_known_frames_are_left_out_with_the_reason(
    videos: Path, fields: dict[str, Any], reason: str, detail: str
) -> None:
    found = read(videos, **fields)
    assert found.dropped == {reason: 1}
    (left_out,) = found.left_out
    assert (left_out.row, left_out.reason) == ("a-1", reason)
    assert re.search(detail, left_out.detail)


@pytest.mark.parametrize("times", [[0], [0, 0], [1, 0], [0, "x"], "0,1", [0, float("nan")]])
def test_times_of_another_form_name_the_line(videos: Path, times: Any) -> None:
    with pytest.raises(UserError, match=r"line 1: (field 'box_times' must be seconds|2 boxes, but 1)"):
        read(videos, boxes_=track(2), box_times=times)


def test_pixels_are_sampled_alike_and_evaluations_count_what_is_not_known(videos: Path) -> None:
    pixels = [[number, 10, 10, 40] for number in range(31)]
    assert lefts(read(videos, xywh=pixels, width=100, height=100)) == [0, 0.1, 0.2, 0.3]
    with reading_for(Purpose.EVALUATION):
        found = read(videos, video="gone", boxes_=track(31))
    assert [(one.row, one.reason) for one in found.left_out] == [("a-1", "unreadable_video")]
