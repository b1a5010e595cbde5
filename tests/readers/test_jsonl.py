"""The JSONL reader for any task."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.readers.jsonl import COMMON, read_jsonl
from vcr1.records import Box, GroundedAnswer, Interval, VideoSource
from vcr1.tasks import BUILTIN, FREE, QATask, Task, TrackingTask

TASKS: dict[str, Task] = {
    task.name: TrackingTask(boxes=2) if task is TrackingTask else task() for task in BUILTIN
}

ROWS: dict[str, dict[str, Any]] = {
    "grounding": {"query": "a dog runs", "interval": [1.5, 4]},
    "tracking": {"query": "the dog", "boxes": [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]},
    "grounded_qa": {"query": "Who?", "options": ["a", "b"], "answer": "b", "intervals": [[1, 2], [3, 4]]},
    "qa": {"query": "Who?", "options": ["a", "b"], "answer": "b"},
    "captioning": {"caption": "A dog runs."},
    "quality": {"query": "Good?", "options": ["low quality", "high quality"], "answer": "low quality"},
}
"""The least that each task's line holds, besides the video."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a.mp4").touch()
    (folder / "frames").mkdir()
    return folder


def read(videos: Path, task: str, *rows: dict[str, Any], **changes: Any) -> Annotations:
    """What is read of a task's lines; each is a change of the task's own row."""
    lines = [json.dumps({"video": "a"} | ROWS[task] | changes | row) for row in rows or ({},)]
    return read_text(videos, task, "\n".join(lines))


def read_text(videos: Path, task: str, text: str, reads: Task | None = None) -> Annotations:
    file = videos / "rows.jsonl"
    file.write_text(text, encoding="utf-8", newline="")
    return read_jsonl(str(file), str(videos), reads or TASKS[task])


def test_every_task_has_a_row_here() -> None:
    assert ROWS.keys() == TASKS.keys()


@pytest.mark.parametrize(
    ("task", "query", "target", "options"),
    [
        ("grounding", "a dog runs", Interval(1.5, 4), ()),
        ("tracking", "the dog", (Box(0.1, 0.2, 0.3, 0.4), Box(0, 0, 1, 1)), ()),
        ("grounded_qa", "Who?", GroundedAnswer("B", (Interval(1, 2), Interval(3, 4))), ("a", "b")),
        ("qa", "Who?", "B", ("a", "b")),
        ("captioning", "Describe what happens in the video, event by event.", "A dog runs.", ()),
        ("quality", "Good?", "low quality", ("low quality", "high quality")),
    ],
)
def test_the_least_that_a_line_holds(
    videos: Path, task: str, query: str, target: object, options: tuple[str, ...]
) -> None:
    found = read(videos, task)
    (sample,) = found.samples
    assert (sample.id, sample.video) == ("rows-1", str(videos / "a.mp4"))
    assert (sample.query, sample.target, sample.options) == (query, target, options)
    assert (sample.duration, sample.extra) == (None, {})
    assert found.mended == found.dropped == {}


@pytest.mark.parametrize("task", TASKS)
def test_common_fields(videos: Path, task: str) -> None:
    more = {
        "id": 12,
        "video": "frames",
        "fps": 4,
        "start": 2,
        "duration": 20,
        "category": "dogs",
        "rationale": "I see it.",
        "extra": {"mine": [1, {"deep": None}]},
    }
    (sample,) = read(videos, task, more).samples
    assert sample.id == "12"
    assert sample.video == VideoSource(str(videos / "frames"), 2.0, None, 4.0)
    assert sample.duration == 18.0
    assert sample.extra == {"mine": [1, {"deep": None}], "category": "dogs", "rationale": "I see it."}


def test_parts_of_videos(videos: Path) -> None:
    found = read(
        videos,
        "grounding",
        {"start": 10, "end": 16, "interval": [5, 7]},  # reaches over the part's 6 s
        {"end": 9},
        {"start": 3, "end": 40, "duration": 30, "interval": [0, 27]},  # the part is cut to the file
        {"start": 5},
        {"start": 10, "end": 13, "interval": [4, 6]},  # times of the file, not of the part
        {"start": 5, "end": 4},
        {"start": math.nan, "end": 4},
        {"start": math.inf},
    )
    path = str(videos / "a.mp4")
    assert [(sample.video, sample.target, sample.duration) for sample in found.samples] == [
        (VideoSource(path, 10.0, 16.0), Interval(5, 6), 6.0),
        (VideoSource(path, 0.0, 9.0), Interval(1.5, 4), 9.0),
        (VideoSource(path, 3.0, 30.0), Interval(0, 27), 27.0),
        (VideoSource(path, 5.0), Interval(1.5, 4), None),
    ]
    assert found.mended == {"clamped_to_the_video": 2}
    assert found.dropped == {"outside_the_video": 1, "start_not_before_end": 1, "not_a_span": 2}


def test_dirty_spans(videos: Path) -> None:
    found = read(
        videos,
        "grounding",
        {"interval": [-1, 11]},
        {"interval": [4, 4]},
        {"interval": [10, 12]},
        {"interval": [math.nan, 2]},
        {"interval": [1, 10**400]},
        {"video": "gone", "interval": [4, 3]},  # two faults, one row
        {"query": "  "},
        duration=10,
    )
    assert [sample.target for sample in found.samples] == [Interval(0, 10)]
    assert found.mended == {"clamped_to_the_video": 1}
    assert found.dropped == {
        "start_not_before_end": 1,
        "outside_the_video": 1,
        "not_a_span": 2,
        "missing_video": 1,
        "empty_query": 1,
    }


def test_dirty_spans_of_grounded_questions(videos: Path) -> None:
    found = read(
        videos,
        "grounded_qa",
        {"intervals": [[1, 2], [9, 12], [-1, 3]]},  # two clamped, one row
        {"intervals": [[12, 13], [4, 3], [5, 6]]},
        {"intervals": [[12, 13], [4, 3]]},
        {"answer": "c"},
        duration=10,
    )
    assert [sample.target.intervals for sample in found.samples] == [
        (Interval(1, 2), Interval(9, 10), Interval(0, 3)),
        (Interval(5, 6),),
    ]
    assert found.mended == {"clamped_to_the_video": 1, "spans_left_out": 1}
    assert found.dropped == {"outside_the_video": 1, "answer_is_no_option": 1}


def test_dirty_boxes(videos: Path) -> None:
    good = [0.25, 0.25, 0.5, 0.5]
    found = read(
        videos,
        "tracking",
        {"boxes": [good, [-0.5, 0.5, 1.5, 0.75]]},
        {"boxes": [good, [0.5, 0.5, 0.25, 0.75]]},
        {"boxes": [good, [10, 20, 200, 300]]},
        {"boxes": [good, [math.nan, 0, 1, 1]]},
        {"boxes": [good, [1, 0, 1.5, 1]]},
        {"boxes": [good, [0.5, 0.5, 0.5, 0.5]]},
    )
    assert [sample.target for sample in found.samples] == [(Box(*good), Box(0, 0.5, 1, 0.75))]
    assert found.mended == {"clamped_to_the_frame": 1}
    assert found.dropped == {
        "reversed_box": 1,
        "box_not_in_fractions": 1,
        "not_a_box": 1,
        "box_without_area_in_the_frame": 2,
    }


def test_boxes_in_pixels(videos: Path) -> None:
    size = {"width": 200, "height": 100}
    found = read(
        videos,
        "tracking",
        {"xywh": [[50, 25, 100, 50], [150, 50, 100, 50]]},
        {"xywh": [[50, 25, 100, 50], [150, 50, -100, 50]]},
        {"xywh": [[50, 25, 100, 50], [0, 0, 1, 1]], "width": 0},
        boxes=None,
        **size,
    )
    assert [sample.target for sample in found.samples] == [
        (Box(0.25, 0.25, 0.75, 0.75), Box(0.75, 0.5, 1, 1))
    ]
    assert found.mended == {"clamped_to_the_frame": 1}
    assert found.dropped == {"reversed_box": 1, "frame_size_not_positive": 1}


def test_options_and_answers(videos: Path) -> None:
    found = read(
        videos,
        "qa",
        {"answer": 1},
        {"options": ["A. a", "B. b"], "answer": "A"},
        {"options": ["a", "a"], "answer": "a"},
        {"options": ["a"], "answer": "a"},
        {"answer": 2},
    )
    assert [sample.target for sample in found.samples] == ["B", "A"]
    assert found.dropped == {"ambiguous_answer": 1, "not_2_to_26_options": 1, "answer_is_no_option": 1}
    assert read(videos, "quality", {}, {"answer": "medium"}).dropped == {"answer_is_no_option": 1}


def test_captions_with_an_instruction_and_events(videos: Path) -> None:
    found = read(videos, "captioning", {"query": "Tell.", "events": ["one", "two"]}, {"caption": ""})
    assert (found.samples[0].query, found.samples[0].extra) == ("Tell.", {"events": ("one", "two")})
    assert found.dropped == {"empty_caption": 1}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("grounding", {"intervall": [1, 2]}, "unknown field 'intervall'; task grounding takes id, video"),
        ("grounding", {"options": ["a"]}, "unknown field 'options'"),
        ("grounding", {"interval": None}, r"needs the field 'interval': \[start, end\] in seconds"),
        ("grounding", {"interval": [1]}, r"field 'interval' must be \[start, end\] in seconds, not \[1\]"),
        ("grounding", {"interval": ["1", "2"]}, "field 'interval' must be"),
        ("grounding", {"interval": [True, 2]}, "field 'interval' must be"),
        ("grounding", {"query": 5}, "field 'query' must be a text, not 5"),
        ("grounding", {"video": None}, "needs the field 'video'"),
        ("grounding", {"duration": "10"}, "field 'duration' must be a number, not '10'"),
        ("grounding", {"id": True}, "field 'id' must be a text or a whole number"),
        ("grounding", {"id": " "}, "field 'id' must be"),
        ("grounding", {"extra": []}, "field 'extra' must be an object"),
        ("grounding", {"extra": {"category": "x"}}, "field 'extra' must be an object without category"),
        ("grounding", {"category": 3}, "field 'category' must be a text"),
        ("grounding", {"video": "gone", "interval": 1}, "field 'interval' must be"),  # also without its video
        ("tracking", {"boxes": None}, "needs the field 'boxes'"),
        ("tracking", {"boxes": [[0, 0, 1]]}, "field 'boxes' must be"),
        ("tracking", {"boxes": [[0, 0, 1, 1]]}, "field 'boxes' must be two boxes or more"),
        ("tracking", {"width": 5}, "has 'boxes' and also 'width'"),
        ("tracking", {"boxes": None, "xywh": [[0, 0, 1, 1]] * 2, "width": 9}, "needs the field 'height'"),
        ("tracking", {"boxes": None, "width": 9, "height": 9}, "needs the field 'xywh'"),
        ("grounded_qa", {"intervals": []}, "field 'intervals' must be"),
        ("grounded_qa", {"intervals": [1, 2]}, "field 'intervals' must be"),
        ("qa", {"answer": None}, "needs the field 'answer'"),
        ("qa", {"answer": 1.0}, "field 'answer' must be"),
        ("qa", {"options": "ab"}, "field 'options' must be a list of texts"),
        ("captioning", {"caption": None}, "needs the field 'caption'"),
        ("captioning", {"events": [1]}, "field 'events' must be a list of texts"),
        ("quality", {"options": ["low", "LOW "]}, "field 'options': needs two or more different names"),
    ],
)
def test_errors_name_file_line_and_field(
    videos: Path, task: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"rows\.jsonl, line 2: {message}"):
        read(videos, task, {}, change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n{", r"line 1: needs the field 'video'"),
        ("\n{", r"line 2: not valid JSON at column 2: "),
        ("1", r"line 1: expected an object \{...\}, found a int"),
        ("[1]", r"row 1: expected an object \{...\}, found a int"),
        ('{"query": "a", "query": "b"}', r"line 1: the field 'query' stands 2 times in one object"),
        ("[" * 100_000, r"rows.jsonl: not usable JSON"),
        ('{"start": ' + "9" * 5000 + "}", r"line 1: not usable JSON"),
        ('{"query": "\\ud800"}', r"line 1: not usable JSON"),
        (" \n", "is empty"),
        ("[]\n" * 3, "not valid JSON at line 2: Extra data"),
    ],
)
def test_broken_lines(videos: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_text(videos, "qa", text)


def test_ids_must_differ(videos: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl: lines 1 and 3 have the same id '5'"):
        read(videos, "qa", {"id": 5}, {"id": "6"}, {"id": "5"})
    with pytest.raises(UserError, match="lines 1 and 2 have the same id 'rows-2'"):
        read(videos, "qa", {"id": "rows-2"}, {})


def test_unknown_tasks_and_missing_files(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task='qa' is no task; in a config write task: \$\{tasks\.qa\}$"):
        read_jsonl("none", str(videos), "qa")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="does not exist"):
        read_jsonl(str(tmp_path / "none.jsonl"), str(videos), QATask())
    with pytest.raises(UserError, match="nothing to work with"):
        read(videos, "qa", video="gone")


def test_a_task_without_fields_reads_no_lines(videos: Path) -> None:
    (videos / "rows.jsonl").write_text('{"video": "a"}')
    with pytest.raises(UserError, match=r"line 1: the task free reads no lines of JSON; give its class"):
        read_jsonl(str(videos / "rows.jsonl"), str(videos), FREE)


def test_blank_lines_and_limits(videos: Path) -> None:
    line = json.dumps({"video": "a"} | ROWS["qa"])
    text = f"\ufeff{line}\r\n\r\n{line}\n"
    found = read_text(videos, "qa", text)
    assert [sample.id for sample in found.samples] == ["rows-1", "rows-3"]
    assert len(read_jsonl(str(videos / "rows.jsonl"), str(videos), QATask(), limit=1).samples) == 1


# --------------------------------------------------------------------------------------------- properties

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)
FINITE = st.floats(0, 1e6, allow_nan=False)
PAIR = st.tuples(FINITE, FINITE).map(sorted).filter(lambda pair: pair[0] < pair[1])
EDGE = st.floats(0, 1).filter(lambda value: value == 0 or value > 1e-6)
SIDE = st.tuples(EDGE, EDGE).map(sorted).filter(lambda pair: pair[0] < pair[1])
OWN: dict[str, Any] = {
    "grounding": st.fixed_dictionaries({"query": TEXT, "interval": PAIR}),
    "tracking": st.fixed_dictionaries(
        {
            "query": TEXT,
            "boxes": st.lists(
                st.tuples(SIDE, SIDE).map(lambda s: [s[0][0], s[1][0], s[0][1], s[1][1]]),
                min_size=2,
                max_size=9,
            ),
        }
    ),
    "qa": st.fixed_dictionaries(
        {
            "query": TEXT,
            "options": st.lists(TEXT.map(lambda t: f"- {t}"), min_size=2, max_size=26, unique=True),
            "answer": st.integers(0, 1),
        }
    ),
    "captioning": st.fixed_dictionaries(
        {"caption": TEXT, "query": TEXT}, optional={"events": st.lists(TEXT, min_size=1, max_size=4)}
    ),
}
MORE = st.fixed_dictionaries({}, optional={"id": TEXT, "category": TEXT, "rationale": TEXT})


@SHARED
@given(st.data(), st.sampled_from(list(OWN)), st.booleans())
def test_what_is_written_comes_back(videos: Path, data: st.DataObject, task: str, ascii_only: bool) -> None:
    row = data.draw(OWN[task]) | data.draw(MORE)
    text = json.dumps({"video": "a"} | row, ensure_ascii=ascii_only)
    shown = TrackingTask(boxes=len(row["boxes"])) if task == "tracking" else None
    found = read_text(videos, task, text, shown)
    (sample,) = found.samples
    assert found.mended == found.dropped == {}
    assert sample.id == row.get("id", "rows-1")
    assert sample.query == row["query"]
    expected = {name: row[name] for name in ("category", "rationale") if name in row}
    assert sample.extra == expected | ({"events": tuple(row["events"])} if "events" in row else {})
    target = {
        "grounding": lambda: [sample.target.start, sample.target.end] == row["interval"],
        "tracking": lambda: [[b.x0, b.y0, b.x1, b.y1] for b in sample.target] == row["boxes"],
        "qa": lambda: (sample.options, sample.target) == (tuple(row["options"]), "AB"[row["answer"]]),
        "captioning": lambda: sample.target == row["caption"],
    }
    assert target[task]()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@SHARED
@given(st.data(), st.sampled_from(list(TASKS)))
def test_hostile_lines_are_read_dropped_or_named(videos: Path, data: st.DataObject, task: str) -> None:
    names = st.sampled_from([*COMMON, *TASKS[task].row_fields])
    row = {"video": "a"} | ROWS[task] | data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=3))
    good = json.dumps({"video": "a", "id": "good line"} | ROWS[task])
    message = ""
    try:
        found = read_text(videos, task, f"{good}\n{json.dumps(row)}")
    except UserError as error:
        message = str(error)
    if message:
        assert "line 2" in message
    else:
        assert len(found.samples) + found.dropped.total() == 2
        assert all(
            math.isfinite(s.duration) and s.duration > 0 for s in found.samples if s.duration is not None
        )


@SHARED
@given(st.text(max_size=40))
def test_hostile_text_is_an_error_with_its_place(videos: Path, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    with pytest.raises(UserError, match="rows\\.jsonl"):
        read_text(videos, "qa", text)
