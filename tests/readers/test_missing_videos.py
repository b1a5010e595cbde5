"""Rows whose video is missing: dropped for training, kept for an evaluation, which counts them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.evaluation import lost_rows
from vcr1.readers import (
    Annotations,
    Purpose,
    concatenate,
    read_activitynet,
    read_charades_sta,
    read_got10k,
    read_jsonl,
    read_mvbench,
    read_nextgqa_json,
    read_tracking_json,
    read_vidtab_quality,
    reading_for,
)
from vcr1.records import Interval, VideoSource
from vcr1.tasks import GroundingTask, QATask


def test_a_kept_row_has_its_target_and_the_path_it_would_have(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text("AAA 1.0 3.0##a person sits.\n")
    with pytest.raises(UserError, match="missing video: 1"):
        read_charades_sta(str(file), str(tmp_path))
    with reading_for(Purpose.EVALUATION):
        (sample,) = read_charades_sta(str(file), str(tmp_path)).samples
    assert (sample.target, sample.duration) == (Interval(1.0, 3.0), None)
    assert sample.video == str(tmp_path / "AAA")


def test_a_video_that_cannot_be_opened_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("AAA 1.0 3.0##a person sits.\n")
    (tmp_path / "AAA.mp4").write_text("no video")
    with reading_for(Purpose.EVALUATION):
        (sample,) = read_charades_sta(str(tmp_path / "test.txt"), str(tmp_path)).samples
    assert sample.video == str(tmp_path / "AAA.mp4")


def test_a_reversed_span_counts_as_an_official_scorer_counts_it(tmp_path: Path) -> None:
    entry = {"duration": 8.0, "timestamps": [[1.0, 2.0], [6.0, 4.0]], "sentences": ["one", "back"]}
    (tmp_path / "val.json").write_text(json.dumps({"gone": entry}))
    with reading_for(Purpose.EVALUATION):
        found = read_activitynet(str(tmp_path / "val.json"), str(tmp_path))
    assert [sample.target for sample in found.samples] == [Interval(1.0, 2.0), Interval(6.0, 6.0)]
    assert found.noticed == {"start_not_before_end": 1}
    assert found.dropped == found.mended == {}


def test_the_folder_may_be_missing_only_where_no_video_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"video": "x.mp4", "query": "it", "interval": [1, 2]}\n')
    arguments = (str(tmp_path / "a.jsonl"), str(tmp_path / "nowhere"), GroundingTask())
    with reading_for(Purpose.EVALUATION), pytest.raises(UserError, match="nowhere does not exist"):
        read_jsonl(*arguments)
    with reading_for(Purpose.SCORING):
        assert len(read_jsonl(*arguments).samples) == 1
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_jsonl(*arguments)


def test_a_folder_of_frames_is_still_found(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(2):
        (tmp_path / "frames" / f"{number}.jpg").touch()
    rows = [{"path": name, "object": "it", "gt": [[0.0, 0.0, 1.0, 1.0]] * 2} for name in ("frames", "gone")]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with reading_for(Purpose.EVALUATION):
        found = read_tracking_json(str(tmp_path / "a.json"), str(tmp_path), boxes=2)
    assert [sample.source for sample in found.samples] == [
        VideoSource(str(tmp_path / "frames"), fps=10.0),
        VideoSource(str(tmp_path / "gone")),
    ]


def test_annotations_that_are_lost_with_their_video_still_count(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("GONE\n")
    with reading_for(Purpose.EVALUATION), pytest.raises(UserError, match="missing folder: 1"):
        read_got10k(str(tmp_path))  # not one sample is left
    found = Annotations("somewhere")
    found.drop("missing_folder", "GONE")
    found.drop("missing_folder", "GONE")
    found.dropped["missing_video"] += 1  # a reader that counts without naming
    found.dropped["empty_query"] += 1
    lost = lost_rows(found)
    assert [one.sample_id for one in lost] == ["GONE", "GONE#2", "without-video-1"]
    assert {one.reason for one in lost} == {"missing_video"}


NO_NAME = "x" * 300
"""What no file can be called: not even an evaluation has a path for it."""


def quality(folder: Path) -> Annotations:
    rows = [
        {
            "video": video,
            "instruction": "How good? Choice one answer from ['clean', 'noisy'].",
            "answer": "noisy",
        }
        for video in ("a.mp4", NO_NAME)
    ]
    (folder / "a.json").write_text(json.dumps(rows))
    return read_vidtab_quality(str(folder / "a.json"), str(folder))


def mvbench(folder: Path) -> Annotations:
    common = {"question": "Which?", "candidates": ["x", "y"], "answer": "x"}
    (folder / "noisy.json").write_text(json.dumps([{"video": name, **common} for name in ("a", NO_NAME)]))
    return read_mvbench(str(folder / "noisy.json"), str(folder))


def own_lines(folder: Path) -> Annotations:
    common = {"query": "Which?", "options": ["x", "y"], "answer": "x", "category": "noisy"}
    lines = [json.dumps({"video": name, **common}) for name in ("a", NO_NAME)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return read_jsonl(str(folder / "a.jsonl"), str(folder), QATask())


def nextgqa(folder: Path) -> Annotations:
    common = {"question": "Why?", "type": "noisy", "answer": "(A)", "options": ["(A) x", "(B) y"]}
    common |= {"duration": 9, "glue": [[1, 2]]}
    rows = [{"id": name[:2], "video": name, **common} for name in ("a", NO_NAME)]
    (folder / "a.json").write_text(json.dumps(rows))
    return read_nextgqa_json(str(folder / "a.json"), str(folder))


@pytest.mark.parametrize("read", [quality, mvbench, own_lines, nextgqa])
def test_what_is_lost_with_its_video_keeps_its_category(
    read: Callable[[Path], Annotations], tmp_path: Path
) -> None:
    with reading_for(Purpose.EVALUATION):
        found = read(tmp_path)
    assert len(found.samples) == 1
    assert [one.category for one in lost_rows(found)] == ["noisy"]
    assert [one.category for one in lost_rows(concatenate([found, found]))] == ["noisy", "noisy"]
