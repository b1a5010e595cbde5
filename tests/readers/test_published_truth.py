"""In evaluations and held-out splits the truth is the file's; for training it is mended, and counted."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from vcr1.config.choices import conf_dir
from vcr1.config.sources import read_annotations
from vcr1.errors import UserError
from vcr1.evaluation import lost_rows
from vcr1.readers import (
    Annotations,
    Purpose,
    read_activitynet,
    read_charades_sta,
    read_got10k,
    read_jsonl,
    read_mvbench,
    read_nextgqa,
    read_nextgqa_json,
    read_tracking_json,
    read_vidtab_quality,
    reading_for,
)
from vcr1.readers.annotations import mend_interval
from vcr1.readers.files import read_json
from vcr1.records import Box, Interval
from vcr1.tasks import GroundingTask
from vcr1.video import write_mp4

SHARED = Path(__file__).resolve().parents[2] / "../shared"
KEEPING = (Purpose.HELD_OUT, Purpose.EVALUATION, Purpose.SCORING)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real annotations are not the project's to ship"
)


def read_for(purpose: Purpose, read: Callable[[], Annotations]) -> Annotations:
    with reading_for(purpose):
        return read()


# --------------------------------------------------------------------------------------------------- spans


@pytest.mark.parametrize("purpose", KEEPING)
def test_charades_keeps_its_spans(tmp_path: Path, purpose: Purpose) -> None:
    write_mp4(tmp_path / "AAAAA.mp4", np.zeros((20, 32, 32, 3), np.uint8), fps=2)  # 10 s
    rows = ["1.5 4", "8.0 11.5", "-1 2", "8.0 7.0", "3 3", "10.5 12", "2 60", "nan 3"]
    file = tmp_path / "charades_sta_test.txt"
    file.write_text("".join(f"AAAAA {row}##a person sits.\n" for row in rows))
    found = read_for(purpose, lambda: read_charades_sta(str(file), str(tmp_path)))
    spans = [(sample.target.start, sample.target.end) for sample in found.samples]
    assert spans == [(1.5, 4), (8, 11.5), (-1, 2), (8, 8), (3, 3), (10.5, 12), (2, 60)]
    assert found.noticed == {
        "start_not_before_end": 2,
        "outside_the_video": 1,
        "reaches_over_the_video": 3,
    }
    assert found.mended == {}
    # What is no span at all has no truth; it counts as a wrong answer.
    assert [(lost.sample_id, lost.reason) for lost in lost_rows(found)] == [("AAAAA-7", "not_a_span")]
    training = read_charades_sta(str(file), str(tmp_path))
    assert [sample.id for sample in training.samples] == ["AAAAA-0", "AAAAA-1", "AAAAA-2"]
    assert [sample.target.end for sample in training.samples] == [4, 10, 2]
    assert training.dropped["ends_far_behind_the_video"] == 1  # 60 s of 10 s


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.one_of(st.none(), st.floats(0.1, 500)))
def test_a_kept_span_is_the_files(start: float, end: float, duration: float | None) -> None:
    for purpose in KEEPING:
        account = Annotations("row")
        with reading_for(purpose):
            found = mend_interval(start, end, duration, account)
        assert found == Interval(start, max(start, end))
        assert account.mended == account.dropped == {}
    mended = mend_interval(start, end, duration, Annotations("row"))
    if mended is not None:
        assert max(start, 0) == mended.start < mended.end <= (end if duration is None else duration)


def gqa(folder: Path) -> tuple[Annotations, Annotations]:
    """A question of each kind in NExT-GQA's own files and in VideoChat-R1's JSON."""
    (folder / "v.mp4").touch()
    spans = {"0": [[1, 9.4]], "1": [[2, 3], [5, 4]], "2": [[1, 2]], "3": [[1, 2]], "4": [[12, 13], [0, 1]]}
    options = {qid: ["a", "b", "c", "d", "e"] for qid in spans} | {"2": ["a", "b", "b", "c", "d"]}
    answers = dict.fromkeys(spans, "b") | {"3": "none of these"}
    lines = ["video_id,frame_count,question,answer,qid,type,a0,a1,a2,a3,a4"]
    lines += [f"v,269,why,{answers[qid]},{qid},CW,{','.join(options[qid])}" for qid in spans]
    lines += ["v,269,why,b,9,CW,a,b,c,d,e"]  # without spans: NExT-GQA's code does not count it
    (folder / "test.csv").write_text("\n".join(lines), newline="\r\n")
    located = {"v": {"duration": 9, "fps": 30, "location": spans}}
    (folder / "gsub.json").write_text(json.dumps(located))
    rows = [
        {"id": f"v_{qid}", "video": "v.mp4", "question": "why", "type": "CW", "duration": 9, "glue": found}
        | {"options": [f"({letter}) {text}" for letter, text in zip("ABCDE", options[qid], strict=True)]}
        | {"answer": "(F)" if qid == "3" else "(B)"}
        for qid, found in spans.items()
    ]
    (folder / "shipped.json").write_text(json.dumps(rows))
    own = read_nextgqa(str(folder / "test.csv"), str(folder / "gsub.json"), str(folder))
    return own, read_nextgqa_json(str(folder / "shipped.json"), str(folder))


@pytest.mark.parametrize("purpose", KEEPING)
def test_both_forms_of_nextgqa_hold_the_same_questions(tmp_path: Path, purpose: Purpose) -> None:
    with reading_for(purpose):
        own, shipped = gqa(tmp_path)
    assert [(one.id, one.target, one.options) for one in own.samples] == [
        (one.id, one.target, one.options) for one in shipped.samples
    ]
    assert [sample.id for sample in own.samples] == ["v_0", "v_1", "v_2", "v_4"]
    assert own.samples[0].target.intervals == (Interval(1, 9.4),)  # the video has 269 frames, 8.97 s
    assert own.samples[1].target.intervals == (Interval(2, 3), Interval(5, 5))
    assert own.samples[2].target.letter == "B"  # the first of two
    for found in (own, shipped):
        assert [(one.sample_id, one.reason) for one in lost_rows(found)] == [("v_3", "answer_is_no_option")]
    assert own.dropped["no_spans"] == 1


@needs_shared
def test_the_real_slices_of_nextgqa_agree(tmp_path: Path) -> None:
    official, shipped = SHARED / "annotations/official/nextgqa", SHARED / "annotations/videochat_r1"
    names = [str(official / name) for name in ("val.csv", "gsub_val.json", "map_vid_vidorID.json")]
    with reading_for(Purpose.EVALUATION):
        own = read_nextgqa(names[0], names[1], str(tmp_path), names[2])
        other = read_nextgqa_json(str(shipped / "nextgqa_val.json"), str(tmp_path))
    assert (len(own.samples), len(other.samples)) == (345, 55)
    assert (own.mended, own.dropped, own.noticed) == ({}, {}, {"reaches_over_the_video": 23})
    targets = {sample.id: sample.target for sample in own.samples}
    assert [targets[sample.id] for sample in other.samples] == [sample.target for sample in other.samples]
    located = json.loads(Path(names[1]).read_text())
    for sample in own.samples:
        video, qid = sample.id.split("_")
        spans = [[span.start, span.end] for span in sample.target.intervals]
        assert spans == sorted(located[video]["location"][qid])


@needs_shared
@pytest.mark.parametrize(
    ("file", "rows", "over", "reversed_"),
    [
        ("annotations/videochat_r1/charades_train.json", 136, 26, 2),
        ("slices/charades_test_iid.json", 823, 151, 0),
    ],
)
def test_the_real_slices_of_charades_keep_their_spans(
    tmp_path: Path, file: str, rows: int, over: int, reversed_: int
) -> None:
    content = json.loads((SHARED / file).read_text())
    with reading_for(Purpose.EVALUATION):
        found = read_activitynet(str(SHARED / file), str(tmp_path))
    spans = [span for entry in content.values() for span in entry["timestamps"]]
    assert [[one.target.start, one.target.end] for one in found.samples] == [
        [start, max(start, end)] for start, end in spans
    ]
    assert len(found.samples) == rows
    assert found.noticed == +Counter(reaches_over_the_video=over, start_not_before_end=reversed_)


# --------------------------------------------------------------------------------------------------- boxes


def sequence(folder: Path, absence: str, lines: list[str]) -> None:
    folder.mkdir()
    for number in range(len(lines)):
        (folder / f"{number}.jpg").touch()
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    (folder / "absence.label").write_text("\n".join(absence))
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (100, 50)\nobject_class: bear")


def test_got10k_keeps_boxes_and_says_where_the_object_is(tmp_path: Path) -> None:
    boxes = ["-10,0,20,25", "90,40,20,20", "0,0,0,0"]
    sequence(tmp_path / "hidden", "001", boxes)
    sequence(tmp_path / "never", "011", boxes)
    sequence(tmp_path / "odd", "000", [boxes[0], "nan,nan,nan,nan", boxes[1]])
    (tmp_path / "list.txt").write_text("hidden\nnever\nodd")
    with reading_for(Purpose.EVALUATION):
        found = read_got10k(str(tmp_path), boxes=3)
    hidden, odd = found.samples
    assert hidden.target == (Box(-0.1, 0, 0.1, 0.5), Box(0.9, 0.8, 1.1, 1.2), Box(0, 0, 0, 0))
    assert hidden.extra["visible"] == (True, True, False)
    assert odd.target[1] == Box(0, 0, 0, 0)
    assert "visible" not in odd.extra
    assert found.noticed == {"reaches_out_of_the_frame": 1, "box_without_area": 1}
    assert found.dropped == {"never_visible": 1}
    assert lost_rows(found) == ()  # no frame of it would count in the toolkit either
    with pytest.raises(UserError, match=r"dropped 3 \(not a box: 1, object absent: 2\)"):
        read_got10k(str(tmp_path), boxes=3)


def test_tracking_rows_keep_their_boxes(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    boxes = [[-0.01, 0.2, 1.02, 0.9], [0.6, 0.2, 0.4, 0.5]]
    rows = [{"path": "v", "object": "bear", "gt": boxes}, {"path": "v", "object": "bear", "gt": boxes[:1]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with reading_for(Purpose.EVALUATION):
        found = read_tracking_json(str(tmp_path / "a.json"), str(tmp_path), boxes=2)
    assert found.samples[0].target == (Box(-0.01, 0.2, 1.02, 0.9), Box(0.6, 0.2, 0.6, 0.2))
    assert [(one.sample_id, one.reason) for one in lost_rows(found)] == [("v#2", "other_number_of_boxes")]


# ------------------------------------------------------------------------------------------------- choices


def test_the_last_of_equal_candidates_is_right_in_mvbench(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    row = {"video": "v.mp4", "question": "which?", "candidates": ["up", "down", "up"], "answer": "up"}
    (tmp_path / "moving.json").write_text(json.dumps([row]))
    with reading_for(Purpose.EVALUATION):
        (sample,) = read_mvbench(str(tmp_path / "moving.json"), str(tmp_path)).samples
    assert sample.target == "C"
    with pytest.raises(UserError, match="ambiguous answer: 1"):
        read_mvbench(str(tmp_path / "moving.json"), str(tmp_path))


def test_a_class_is_meant_whatever_its_capitals(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    question = "How good? Choice one answer from ['low quality', 'high quality']."
    row = {"video": "v.mp4", "instruction": question, "answer": "Low Quality "}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (sample,) = read_vidtab_quality(str(tmp_path / "a.json"), str(tmp_path)).samples
    assert sample.target == "low quality"


# --------------------------------------------------------------------------------------------------- files


def test_json_that_is_lines_and_lines_that_are_json(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    row = {"video": "v", "query": "it", "interval": [1, 2]}
    lines = tmp_path / "rows.json"
    lines.write_text("\ufeff" + json.dumps(row) + "\r\n\r\n" + json.dumps(row) + "\r\n")
    assert read_json(lines) == [row, row]
    whole = tmp_path / "rows.jsonl"
    whole.write_text(json.dumps([row, row | {"id": "b"}], indent=2))
    assert [one.id for one in read_jsonl(str(whole), str(tmp_path), GroundingTask()).samples] == [
        "rows-1",
        "b",
    ]
    lines.write_text(json.dumps(row) + "\n{broken\n")
    with pytest.raises(UserError, match=r"rows\.json, line 2: not valid JSON"):
        read_json(lines)
    whole.write_text(json.dumps([row, row | {"intervall": 3}]))
    with pytest.raises(UserError, match=r"rows\.jsonl, row 2: unknown field 'intervall'"):
        read_jsonl(str(whole), str(tmp_path), GroundingTask())


@pytest.mark.parametrize("purpose", [Purpose.TRAINING, Purpose.EVALUATION])
def test_a_span_in_frames_does_not_pass_where_the_row_states_a_duration(
    tmp_path: Path, purpose: Purpose
) -> None:
    (tmp_path / "v.mp4").touch()
    rows = [
        {"video": "v", "query": "it", "duration": 6, "interval": span}
        for span in ([1, 2], [45, 120], [3, 120])
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with reading_for(purpose):
        found = read_jsonl(str(tmp_path / "a.jsonl"), str(tmp_path), GroundingTask())
    if purpose is Purpose.TRAINING:
        assert found.dropped == {"outside_the_video": 1, "ends_far_behind_the_video": 1}
    else:
        assert found.noticed == {"outside_the_video": 1, "reaches_over_the_video": 1}
        assert "kept as published 2 (outside the video: 1, reaches over the video: 1)" in str(found)


def test_a_training_run_mends_what_it_trains_on_and_keeps_what_it_is_measured_by(tmp_path: Path) -> None:
    (tmp_path / "activitynet" / "videos").mkdir(parents=True)
    (tmp_path / "activitynet" / "videos" / "v.mp4").touch()
    entry = {"duration": 10, "timestamps": [[2, 11]], "sentences": ["one"]}
    for split in ("train", "val_2"):
        (tmp_path / "activitynet" / f"{split}.json").write_text(json.dumps({"v": entry}))
    overrides = ["task=[grounding]", "data=[activitynet]", f"data.root={tmp_path}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        splits = read_annotations(compose("train", overrides=overrides))["grounding"]
    assert [sample.target for sample in splits["train"].samples] == [Interval(2, 10)]
    assert [sample.target for sample in splits["val"].samples] == [Interval(2, 11)]
    # The constants fit the mended targets, 2..10, and are held against the published ones, 2..11.
    baselines = GroundingTask().baselines(splits["train"].samples, splits["val"].samples)
    assert baselines["constant"]["mIoU"] == pytest.approx(8 / 9)
