"""The readers of NExT-GQA, on files written here and on slices of the real ones."""

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.readers.nextgqa import read_nextgqa, read_nextgqa_json
from vcr1.records import GroundedAnswer, Interval
from vcr1.tasks import GroundedQATask

REAL = Path(__file__).resolve().parents[2] / "../shared/annotations"
needs_real_annotations = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real annotations are not the project's to ship"
)

HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
LENGTH = {"duration": 10, "fps": 25.0}  # with 250 frames exactly ten seconds


def question(
    qid: int = 0,
    video: str = "v",
    frames: object = 250,
    answer: str = "sits",
    options: str = "runs,sits,eats,x,y",
) -> str:
    return f"{video},{frames},640,480,what does he do,{answer},{qid},CW,{options}"


def write_csv(path: Path, *lines: str, header: str = HEADER) -> str:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with ``v.mp4`` and ``12/34.mp4``."""
    folder = tmp_path / "videos"
    (folder / "12").mkdir(parents=True)
    (folder / "v.mp4").touch()
    (folder / "12/34.mp4").touch()
    return folder


def one_span(start: float = 1.0, end: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"v": LENGTH | {"location": {"0": [[start, end]]}} | more}


# ---------------------------------------------------------------------------------------------- own files


def test_a_question_gives_a_sample(tmp_path: Path, videos: Path) -> None:
    row = '34,250,640,480,"why, did he ""sit""",was tired,7,TN,fell, was tired ,ran,ate,"slept, long"'
    file = write_csv(tmp_path / "val.csv", row)
    spans = write_json(tmp_path / "s.json", {"34": LENGTH | {"location": {"7": [[6.0, 7.5], [1.0, 2.5]]}}})
    id_map = write_json(tmp_path / "map.json", {"34": "12/34"})
    found = read_nextgqa(file, spans, str(videos), id_map)
    (sample,) = found.samples
    assert (sample.id, sample.query) == ("34_7", 'why, did he "sit"')
    assert sample.video == str(videos / "12/34.mp4")
    assert sample.options == ("fell", "was tired", "ran", "ate", "slept, long")
    assert sample.target == GroundedAnswer("B", (Interval(1.0, 2.5), Interval(6.0, 7.5)))
    assert sample.duration == 10.0
    assert sample.extra == {"category": "TN"}
    assert (found.mended, found.dropped) == ({}, {})


def test_the_task_asks_for_what_the_reader_gives(tmp_path: Path, videos: Path) -> None:
    file = write_csv(tmp_path / "val.csv", question())
    (sample,) = read_nextgqa(file, write_json(tmp_path / "s.json", one_span()), str(videos)).samples
    task = GroundedQATask()
    (judgement,) = task.judge([task.answer(sample)], [sample]).result()
    assert judgement.total == 3.0
    assert "what does he do\n(A) runs\n(B) sits\n" in task.prompt(sample).text
    assert judgement.category == "CW"


def test_unusable_questions_are_dropped_and_counted(tmp_path: Path, videos: Path) -> None:
    lines = [
        question(0),
        question(0),  # again
        question(1),  # no spans of this question
        question(0, video="w"),  # nor of this video
        question(0, video="gone"),
        question(2, answer="flies"),
        question(3, options="runs,sits,sits ,x,y"),
        question(4, options="runs,sits,x,x,x"),  # wrong options may be equal
        question(5, options="runs,sits,, x,y"),
        question(6).replace("what does he do", " "),
        question(7),
        question(8),
    ]
    location: dict[str, Any] = {str(qid): [[1, 2]] for qid in (0, 2, 3, 4, 5, 6)}
    location |= {"7": [[3, 3], [4, 2]], "8": [[11, 12]], "9": [[1, 2]]}
    entries = {video: LENGTH | {"location": location} for video in ("v", "gone")}
    spans = write_json(tmp_path / "s.json", entries)
    found = read_nextgqa(write_csv(tmp_path / "val.csv", *lines), spans, str(videos))
    assert [sample.id for sample in found.samples] == ["v_0", "v_4"]
    assert found.mended == {}
    assert found.dropped == {
        "repeated_id": 1,
        "no_spans": 2,
        "missing_video": 1,
        "answer_is_no_option": 1,
        "answer_stands_twice": 1,
        "empty_option": 1,
        "empty_query": 1,
        "start_not_before_end": 1,
        "outside_the_video": 1,
    }


def test_spans_are_mended_one_by_one_and_put_in_order(tmp_path: Path, videos: Path) -> None:
    location = {
        "0": [[8, 12], [-1, 2], [3, 4]],  # two reach over: one question
        "1": [[1, 3], [2, 5], [7, 8]],
        "2": [[1, 3], [5, 5], [9, math.nan]],
        "3": [[1, 3], [3, 5]],
    }
    spans = write_json(tmp_path / "s.json", {"v": LENGTH | {"location": location}})
    file = write_csv(tmp_path / "val.csv", *map(question, range(4)))
    found = read_nextgqa(file, spans, str(videos))
    intervals = [[(span.start, span.end) for span in s.target.intervals] for s in found.samples]
    assert intervals == [[(0, 2), (3, 4), (8, 10)], [(1, 3), (2, 5), (7, 8)], [(1, 3)], [(1, 3), (3, 5)]]
    assert found.mended == {"clamped_to_the_video": 1, "span_left_out": 1}
    assert found.dropped == {}


@pytest.mark.parametrize(
    ("frames", "entry", "duration", "end", "mended"),
    [
        # 536 frames at 25 Hz are 21.44 s, in the file 21 s; spans are rounded to tenths.
        (536, {"duration": 21, "fps": 25.0}, 21.44, 21.4, {}),
        (536, {"duration": 21, "fps": 25.0}, 21.44, 21.5, {"clamped_to_the_video": 1}),
        (525, {"duration": 21, "fps": 25.0}, 21.0, 21.5, {"clamped_to_the_video": 1}),
        # Without the exact length, whole seconds may be half a second short, no more.
        ("", {"duration": 21, "fps": 25.0}, 21.5, 21.5, {"duration_was_rounded": 1}),
        (0, {"duration": 21, "fps": 25.0}, 21.5, 21.5, {"duration_was_rounded": 1}),
        (536, {"duration": 21}, 21.3, 21.3, {"duration_was_rounded": 1}),
        (536, {"duration": 21, "fps": None}, 21.0, 21.6, {"clamped_to_the_video": 1}),
        (536, {"duration": 21.2}, 21.2, 21.5, {"clamped_to_the_video": 1}),
        (536, {}, None, 21.6, {}),
    ],
)
def test_the_length_of_a_video(
    tmp_path: Path,
    videos: Path,
    frames: object,
    entry: dict[str, Any],
    duration: float | None,
    end: float,
    mended: dict[str, int],
) -> None:
    spans = write_json(tmp_path / "s.json", {"v": entry | {"location": {"0": [[2.0, end]]}}})
    found = read_nextgqa(write_csv(tmp_path / "val.csv", question(frames=frames)), spans, str(videos))
    (sample,) = found.samples
    assert sample.duration == duration
    assert sample.target.intervals == (Interval(2.0, end if duration is None else min(end, duration)),)
    assert found.mended == mended


def test_limit_counts_questions_and_columns_may_stand_anywhere(tmp_path: Path, videos: Path) -> None:
    spans = {"v": LENGTH | {"location": {str(qid): [[1, 2]] for qid in range(3)}}}
    file = write_json(tmp_path / "s.json", spans)
    lines = [f"x,y,eats,sits,runs,{qid},v,sits,CW,what" for qid in range(3)]
    header = "a4,a3,a2,a1,a0,qid,video_id,answer,type,question"  # no frame_count: seconds of the file
    questions = write_csv(tmp_path / "val.csv", *lines, header=header)
    found = read_nextgqa(questions, file, str(videos), limit=2)
    assert [sample.id for sample in found.samples] == ["v_0", "v_1"]
    assert (found.samples[0].target.letter, found.samples[0].duration) == ("B", 10.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([question(), "v,250,640"], r"val\.csv, line 3: 3 cells, but there are 13 columns"),
        ([question(options="runs,sits,a,b,c,d")], r"line 2: 14 cells, but there are 13 columns"),
        ([question(), question(1, options='runs,"sits,x,y,z')], r"line 3: not valid CSV: "),
        ([question(answer='"sits"x')], r"line 2: not valid CSV: "),
        ([question(answer="s" * 200_000)], r"line 2: not valid CSV: field larger"),
        ([question(frames="many")], r"line 2: frame_count is no number: 'many'"),
        ([question(frames="9" * 5000)], r"line 2: frame_count is no number"),
    ],
)
def test_a_broken_question_is_named(tmp_path: Path, videos: Path, lines: list[str], message: str) -> None:
    spans = write_json(tmp_path / "s.json", one_span())
    with pytest.raises(UserError, match=message):
        read_nextgqa(write_csv(tmp_path / "val.csv", *lines), spans, str(videos))


def test_missing_columns_are_named(tmp_path: Path, videos: Path) -> None:
    spans = write_json(tmp_path / "s.json", one_span())
    file = write_csv(tmp_path / "val.csv", "a,b", header="video_id,question,answer,type,a0,a1,a2,a3")
    with pytest.raises(UserError, match=r"val\.csv, line 1: the columns qid, a4 are missing"):
        read_nextgqa(file, spans, str(videos))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"s\.json: expected \{video: .*found a list"),
        ({"v": []}, r"s\.json: video 'v' needs duration, fps and location .*AttributeError"),
        ({"v": {"duration": 3}}, r"video 'v' needs .*KeyError: 'location'"),
        (one_span(location=[]), r"video 'v' needs .*AttributeError"),
        (one_span(location={"0": {}}), r"spans are a list, not a dict"),
        (one_span(location={"0": [3]}), r"video 'v' needs .*TypeError"),
        (one_span(location={"0": [[1, 2, 3]]}), r"video 'v' needs .*ValueError"),
        (one_span(location={"0": [["1", 2]]}), r"a str where a number should be"),
        (one_span(location={"0": [[True, 2]]}), r"a bool where a number should be"),
        (one_span(location={"0": [[1, 10**400]]}), r"video 'v' needs .*OverflowError"),
        (one_span(fps=0), r"fps is 0\.0"),
        (one_span(fps="25"), r"a str where a number should be"),
        (one_span(duration="9"), r"a str where a number should be"),
    ],
)
def test_a_broken_file_of_spans_is_named(tmp_path: Path, videos: Path, content: Any, message: str) -> None:
    spans = write_json(tmp_path / "s.json", content)
    with pytest.raises(UserError, match=message):
        read_nextgqa(write_csv(tmp_path / "val.csv", question()), spans, str(videos))


def test_a_broken_map_missing_files_and_nothing_usable_are_named(tmp_path: Path, videos: Path) -> None:
    file, spans = write_csv(tmp_path / "val.csv", question()), write_json(tmp_path / "s.json", one_span())
    for content in ([], {"v": 3}):
        id_map = write_json(tmp_path / "map.json", content)
        with pytest.raises(UserError, match=r"map\.json: expected \{video: path\} of texts"):
            read_nextgqa(file, spans, str(videos), id_map)
    with pytest.raises(UserError, match=r"annotation file .*none\.csv does not exist"):
        read_nextgqa(str(tmp_path / "none.csv"), spans, str(videos))
    with pytest.raises(UserError, match=r"video folder .*nowhere does not exist"):
        read_nextgqa(file, spans, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"dropped 1 \(no spans: 1\) - nothing to work with"):
        read_nextgqa(file, write_json(tmp_path / "s.json", {}), str(videos))
    with pytest.raises(UserError, match=r"dropped 1 \(duration not positive: 1\) - nothing to work with"):
        read_nextgqa(file, write_json(tmp_path / "s.json", one_span(fps=None, duration=-3)), str(videos))


# ------------------------------------------------------------------------------------ VideoChat-R1's rows


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "v_0",
        "video": "v.mp4",
        "question": "what does he do",
        "options": ["(A) runs", "(B) sits", "(C) eats"],
        "duration": 10,
        "glue": [[1.0, 2.0]],
        "type": "CH",
        "answer": "(B)",
    } | changes


def test_a_row_gives_a_sample(tmp_path: Path, videos: Path) -> None:
    file = write_json(tmp_path / "a.json", [row(), row(id="w", video="12/34", answer="(C)", type="")])
    first, second = read_nextgqa_json(file, str(videos)).samples
    assert (first.id, first.query, first.duration) == ("v_0", "what does he do", 10.0)
    assert first.video == str(videos / "v.mp4")
    assert first.options == ("runs", "sits", "eats")
    assert first.target == GroundedAnswer("B", (Interval(1.0, 2.0),))
    assert first.extra == {"category": "CH"}
    assert (second.video, second.target.letter) == (str(videos / "12/34.mp4"), "C")
    assert second.extra == {}
    assert len(read_nextgqa_json(file, str(videos), limit=1).samples) == 1


def test_dirty_rows_are_mended_or_dropped_and_counted(tmp_path: Path, videos: Path) -> None:
    rows = [
        row(glue=[[8.0, 10.5], [4.0, 5.0]]),  # 10 is 10.5 rounded
        row(id="over", glue=[[8.0, 10.6]]),
        row(id="over twice", glue=[[8.0, 10.3], [9.0, 11.0]]),
        row(),
        row(id="none", glue=[]),
        row(id="gone", video="gone.mp4"),
        row(id="late", glue=[[10.2, 12.0], [11, 12]]),
        row(id="odd", duration=math.nan),
        row(id="beyond", answer="(D)"),
        row(id="twice", options=["(A) sits", "(B) sits"]),
        row(id="empty", options=["(A) sits", "(B)  "]),
    ]
    found = read_nextgqa_json(write_json(tmp_path / "a.json", rows), str(videos))
    kept = [(s.id, s.duration, [(i.start, i.end) for i in s.target.intervals]) for s in found.samples]
    assert kept == [
        ("v_0", 10.5, [(4.0, 5.0), (8.0, 10.5)]),
        ("over", 10.0, [(8.0, 10.0)]),
        ("over twice", 10.3, [(8.0, 10.3), (9.0, 10.3)]),
    ]
    assert found.mended == {"duration_was_rounded": 2, "clamped_to_the_video": 2}
    assert found.dropped == {
        "repeated_id": 1,
        "no_spans": 1,
        "missing_video": 1,
        "outside_the_video": 1,
        "duration_not_positive": 1,
        "answer_is_no_option": 1,
        "answer_stands_twice": 1,
        "empty_option": 1,
    }


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("text", "TypeError"),
        ({}, "KeyError: 'options'"),
        (row(options=["(A) runs", "(C) sits"]), "option B does not begin with"),
        (row(options=["(A) runs", "sits"]), "option B does not begin with"),
        (row(options=["(A) runs", "(B)sits"]), "option B does not begin with"),
        (row(options=["(A) runs"]), "2 to 26"),
        (row(options=["(A) x"] * 27), "2 to 26"),
        (row(options="(A) x"), "2 to 26"),
        (row(options=["(A) runs", 3]), "an int where a text should be"),
        (row(answer="B"), "the answer is no letter in brackets: 'B'"),
        (row(answer="(b)"), "no letter in brackets"),
        (row(answer="(B) sits"), "no letter in brackets"),
        (row(answer=2), "where a text should be"),
        (row(id=5), "where a text should be"),
        (row(duration="10"), "where a number should be"),
        (row(duration=None), "where a number should be"),
        (row(glue=None), "spans are a list"),
        (row(glue=[[1, 2, 3]]), "ValueError"),
        (row(glue=[[1, 10**400]]), "OverflowError"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, videos: Path, broken: Any, reason: str) -> None:
    file = write_json(tmp_path / "a.json", [row(), broken])
    with pytest.raises(UserError, match=r"a\.json, row 2: needs id, video, question") as caught:
        read_nextgqa_json(file, str(videos))
    assert reason.replace("an int", "a int") in str(caught.value)


def test_what_is_no_list_of_rows_is_named(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: expected a list of rows, found a dict"):
        read_nextgqa_json(write_json(tmp_path / "a.json", row()), str(videos))


@pytest.fixture(scope="module")
def one_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_video")
    (folder / "v.mp4").touch()
    return folder


times = st.floats() | st.floats(-1, 12) | st.integers(-1, 12)


@settings(max_examples=100)
@given(glue=st.lists(st.tuples(times, times), max_size=6), duration=times)
def test_whatever_the_spans_a_kept_row_has_some_in_order_within_its_video(
    one_video: Path, glue: list[tuple[float, float]], duration: float
) -> None:
    file = write_json(one_video / "a.json", [row(), row(id="any", glue=glue, duration=duration)])
    found = read_nextgqa_json(file, str(one_video))
    assert len(found.samples) + found.dropped.total() == 2
    for sample in found.samples:
        spans = [(span.start, span.end) for span in sample.target.intervals]
        assert spans == sorted(spans)
        assert all(0 <= start < end <= sample.duration for start, end in spans)


# -------------------------------------------------------------------------------------- the real slices


@needs_real_annotations
def test_real_questions(tmp_path: Path) -> None:
    folder = REAL / "official/nextgqa"
    id_map = json.loads((folder / "map_vid_vidorID.json").read_text())
    for path in id_map.values():
        file = tmp_path / f"{path}.mp4"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    names = [str(folder / name) for name in ("val.csv", "gsub_val.json", "map_vid_vidorID.json")]
    found = read_nextgqa(names[0], names[1], str(tmp_path), names[2])
    assert len(found.samples) == len({sample.id for sample in found.samples}) == 345
    assert found.dropped == {}
    # Counted in the files: the ends of 23 questions lie less than a tenth of a second after the last frame's,
    # as they are rounded to tenths; the two spans of question 6 of 3477387686 touch.
    assert found.mended == {"clamped_to_the_video": 23}
    located = json.loads(Path(names[1]).read_text())
    for sample in found.samples:
        video, qid = sample.id.split("_")
        spans = sample.target.intervals
        assert abs(sample.duration - located[video]["duration"]) <= 0.5
        assert max(end for _, end in located[video]["location"][qid]) < sample.duration + 0.1
        assert 0 <= spans[0].start < spans[-1].end <= sample.duration
    categories = Counter(sample.extra["category"] for sample in found.samples)
    assert categories == {"CW": 159, "TN": 88, "TC": 47, "CH": 46, "TP": 5}
    with Path(names[0]).open(newline="") as lines:
        answers = [line["answer"] for line in csv.DictReader(lines)]
    for sample, answer in zip(found.samples, answers, strict=True):
        assert sample.options["ABCDE".index(sample.target.letter)] == answer


@needs_real_annotations
def test_real_rows(tmp_path: Path) -> None:
    file = REAL / "videochat_r1/nextgqa_val.json"
    content = json.loads(file.read_text())
    for entry in content:
        path = tmp_path / entry["video"]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = read_nextgqa_json(str(file), str(tmp_path))
    assert len(found.samples) == len({sample.id for sample in found.samples}) == 55
    assert found.dropped == {}
    assert found.mended == {"duration_was_rounded": 3}
    by_id = {sample.id: sample for sample in found.samples}
    rounded = by_id["2482028659_5"]  # 21 s in the file, and a span that ends at 21.5 s
    assert rounded.duration == 21.5
    assert rounded.target == GroundedAnswer("B", (Interval(0.0, 6.1), Interval(8.9, 21.5)))
    assert rounded.options[1] == "sound turning"


@needs_real_annotations
def test_both_forms_of_the_real_file_agree(tmp_path: Path) -> None:
    folder = REAL / "official/nextgqa"
    rows = json.loads((REAL / "videochat_r1/nextgqa_val.json").read_text())
    for entry in rows:
        path = tmp_path / entry["video"]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = [str(folder / name) for name in ("val.csv", "gsub_val.json", "map_vid_vidorID.json")]
    own = {s.id: s for s in read_nextgqa(names[0], names[1], str(tmp_path), names[2]).samples}
    shipped = read_nextgqa_json(str(REAL / "videochat_r1/nextgqa_val.json"), str(tmp_path)).samples
    for sample in shipped:
        other = own[sample.id]
        assert (sample.video, sample.query, sample.options) == (other.video, other.query, other.options)
        assert sample.target.letter == other.target.letter
        assert abs(sample.target.intervals[-1].end - other.target.intervals[-1].end) < 0.1
