"""What is asked, and what cannot be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vcr1.errors import UserError
from vcr1.inference import Failure, Question, QuestionDefaults, read_questions
from vcr1.records import Box, GroundedAnswer, Interval, VideoSource
from vcr1.tasks import BUILTIN, QATask, Task, TrackingTask

TASKS: dict[str, Task] = {task.name: task() for task in BUILTIN} | {"tracking": TrackingTask(boxes=2)}


def manner(task: str = "free", **common: Any) -> QuestionDefaults:
    return QuestionDefaults(task, TASKS, 100, common)


def clips(folder: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).touch()


def test_questions_about_one_video() -> None:
    (one,) = read_questions("a/clip.mp4", ["what?"], manner())
    assert one == Question("clip", VideoSource("a/clip.mp4"), "what?")
    asked = read_questions("clip.mp4", ["one", "two"], manner("grounding", start=2.0, end=8))
    assert asked == [
        Question("clip-0", VideoSource("clip.mp4", 2.0, 8), "one", TASKS["grounding"]),
        Question("clip-1", VideoSource("clip.mp4", 2.0, 8), "two", TASKS["grounding"]),
    ]


def test_a_question_is_a_sample_of_its_task() -> None:
    (track,) = read_questions("a.mp4", ["the dog"], manner("tracking", box=[0.1, 0.2, 0.4, 0.6]))
    assert isinstance(track, Question)
    assert track.box == Box(0.1, 0.2, 0.4, 0.6)
    assert "is in the box [0.100, 0.200, 0.400, 0.600]" in TrackingTask().prompt(track.sample()).text
    (choice,) = read_questions("a.mp4", ["which?"], manner("qa", options=["red", 2]))
    assert isinstance(choice, Question)
    assert "(A) red\n(B) 2\n" in QATask().prompt(choice.sample()).text


def test_captioning_needs_no_words() -> None:
    (one,) = read_questions("a.mp4", [], manner("captioning"))
    assert isinstance(one, Question)
    assert one.query == "Describe what happens in the video, event by event."
    with pytest.raises(UserError, match=r"^nothing is asked"):
        read_questions("a.mp4", [], manner("grounding"))


def test_a_folder_is_asked_video_by_video(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.webm", "notes.txt", "c.mkv"):
        (tmp_path / name).touch()
    asked = read_questions(str(tmp_path), ["what?"], manner())
    assert [Path(one.source.path).name for one in asked if isinstance(one, Question)] == [
        "a.webm",
        "b.MP4",
        "c.mkv",
    ]
    (pictures,) = read_questions(str(tmp_path), ["what?"], manner(fps=5))
    assert isinstance(pictures, Question)
    assert pictures.source == VideoSource(str(tmp_path), fps=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder holds no videos"):
        read_questions(str(tmp_path / "empty"), ["what?"], manner())


def test_lines_name_their_own_task_and_part(tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "query": "the dog barks", "id": "dog", "start": 1.5},
        {"video": "b.mp4", "task": "tracking", "query": "the cat", "box": [0, 0, 0.5, 0.5]},
        {"video": "c.mp4", "task": "free"},
    ]
    clips(tmp_path)
    file = tmp_path / "ask.jsonl"
    file.write_text("\n\n".join(map(json.dumps, rows)))
    asked = read_questions(str(file), ["what?", "why?"], manner("grounding"))
    assert asked == [
        Question("dog", VideoSource(f"{tmp_path}/a.mp4", 1.5), "the dog barks", TASKS["grounding"]),
        Question("3", VideoSource(f"{tmp_path}/b.mp4"), "the cat", TASKS["tracking"], Box(0, 0, 0.5, 0.5)),
        Question("5-0", VideoSource(f"{tmp_path}/c.mp4"), "what?"),
        Question("5-1", VideoSource(f"{tmp_path}/c.mp4"), "why?"),
    ]


BAD_LINES = [
    ("{", "not valid JSON"),
    ("[1]", "a line must be an object"),
    ('{"query": "x"}', "needs the field 'video'"),
    ('{"video": 3, "query": "x"}', "needs the field 'video'"),
    ('{"video": "a.mp4", "querry": "x"}', "unknown field querry"),
    ('{"video": "a.mp4", "query": 5}', "query must be a text"),
    ('{"video": "a.mp4"}', "nothing is asked"),
    ('{"video": "a.mp4", "query": "x", "task": "dancing"}', "task dancing is not among"),
    ('{"video": "a.mp4", "query": "x", "task": ["qa"]}', "is not among"),
    ('{"video": "a.mp4", "query": "x", "task": "qa", "options": ["one"]}', "2 to 26 options, found 1"),
    ('{"video": "a.mp4", "query": "x", "options": "ab"}', "options must be a list"),
    ('{"video": "a.mp4", "query": "x", "task": "tracking"}', "needs the object's first box"),
    ('{"video": "a.mp4", "query": "x", "box": [1, 2]}', "must be \\[left,top,right,bottom\\]"),
    ('{"video": "a.mp4", "query": "x", "box": [0.5, 0, 0.1, 1]}', "must be \\[left,top"),
    ('{"video": "a.mp4", "query": "x", "box": [10, 10, 90, 90]}', "fractions"),
    ('{"video": "a.mp4", "query": "x", "start": "soon"}', "start=soon is no number"),
    ('{"video": "a.mp4", "query": "x", "start": 5, "end": 2}', "ends at 2"),
    ('{"video": "a.mp4", "query": "x", "fps": 0}', "frames per second"),
    ('{"video": "a.mp4", "query": "' + "x" * 101 + '"}', "101 characters, more than limits.query=100"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_one_failure(tmp_path: Path, line: str, reason: str) -> None:
    clips(tmp_path)
    file = tmp_path / "ask.jsonl"
    file.write_text(f'{{"video": "a.mp4", "query": "fine"}}\n{line}\n')
    fine, bad = read_questions(str(file), [], manner())
    assert isinstance(fine, Question)
    assert isinstance(bad, Failure)
    with pytest.raises(UserError, match=reason):
        raise UserError(bad.reason)


TRAINING_LINES: dict[str, tuple[dict[str, Any], Any]] = {
    "grounding": ({"query": "x", "interval": [2, 9]}, Interval(2, 9)),
    "tracking": (
        {"query": "x", "xywh": [[10, 10, 20, 20], [0, 0, 50, 25]], "width": 100, "height": 50},
        (Box(0.1, 0.2, 0.3, 0.6), Box(0, 0, 0.5, 0.5)),
    ),
    "grounded_qa": (
        {"query": "x", "options": ["a", "b"], "answer": "b", "intervals": [[1, 2]]},
        GroundedAnswer("B", (Interval(1, 2),)),
    ),
    "qa": ({"query": "x", "options": ["a", "b"], "answer": "b", "category": "c"}, "B"),
    "captioning": ({"caption": "A dog runs.", "events": ["a dog runs"]}, "A dog runs."),
    "quality": ({"query": "x", "options": ["low", "high"], "answer": "low", "rationale": "r"}, "low"),
}


@pytest.mark.parametrize("task", TRAINING_LINES)
def test_the_lines_that_one_trains_on_are_asked_and_their_truth_is_kept(tmp_path: Path, task: str) -> None:
    line, truth = TRAINING_LINES[task]
    (tmp_path / task).mkdir()
    (tmp_path / "videos").mkdir()
    clips(tmp_path / "videos")
    file = tmp_path / task / "val.jsonl"  # as data=jsonl has it; the videos lie in ../videos
    file.write_text(json.dumps({"video": "clips/a", "duration": 8} | line))
    (found,) = read_questions(str(file), [], manner(task))
    assert isinstance(found, Question), found
    assert (found.task.name, Path(found.source.path).resolve()) == (task, tmp_path / "videos" / "a.mp4")
    assert found.truth is not None
    assert found.truth.target == truth
    assert found.sample().target == ((Box(0.1, 0.2, 0.3, 0.6),) if task == "tracking" else None)


@pytest.mark.parametrize(
    ("task", "line", "reason"),
    [
        ("free", '{"interval": [1, 2]}', "interval not used: name their task, such as task=grounding"),
        ("captioning", '{"interval": [1, 2]}', "interval not used: no truth of the task captioning"),
        ("grounding", '{"interval": [1]}', "truth not used: .*line 1: field 'interval' must be"),
        ("grounding", '{"interval": [1, 2e400]}', "truth not used: not a span"),
    ],
)
def test_why_a_stated_truth_is_not_used(tmp_path: Path, task: str, line: str, reason: str) -> None:
    clips(tmp_path)
    (tmp_path / "ask.jsonl").write_text(line.replace("{", '{"video": "a", "query": "x", '))
    (found,) = read_questions(str(tmp_path / "ask.jsonl"), [], manner(task))
    assert isinstance(found, Question)
    assert found.truth is None
    assert re.search(reason, found.unused or "")


def test_where_a_missing_video_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "ask.jsonl").write_text('{"video": "clips/a.mp4", "query": "x"}')
    (found,) = read_questions(str(tmp_path / "ask.jsonl"), [], manner())
    assert isinstance(found, Failure)
    assert f"tried {tmp_path}/clips/a.mp4, {tmp_path}/a.mp4, with the endings .mp4" in found.reason


def test_equal_ids_are_a_failure_of_the_second(tmp_path: Path) -> None:
    clips(tmp_path)
    file = tmp_path / "ask.jsonl"
    file.write_text('{"video": "a.mp4", "query": "x", "id": "1"}\n' * 2)
    first, second = read_questions(str(file), [], manner())
    assert isinstance(first, Question)
    assert isinstance(second, Failure)
    assert "line 2: the id '1' stands above already" in second.reason


@pytest.mark.parametrize(
    ("query", "settings", "reason"),
    [
        ("x" * 100_000, {}, "^query has 100000 characters, more than limits.query=100"),
        ("  ", {}, "^query must be a text that is not empty"),
        ("x", {"task": "tracking"}, "tracking needs the object's first box"),
        ("x", {"task": "qa"}, "qa takes 2 to 26 options, found 0"),
        ("x", {"task": "quality", "options": ["y" * 60] * 2}, "options has 120 characters"),
    ],
)
def test_the_command_line_is_checked_at_once(query: str, settings: dict[str, Any], reason: str) -> None:
    task = settings.pop("task", "free")
    with pytest.raises(UserError, match=reason):
        read_questions("a.mp4", [query], manner(task, **settings))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_file_that_holds_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ask.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"ask\.jsonl"):
        read_questions(str(file), ["x"], manner())
    with pytest.raises(UserError, match="does not exist"):
        read_questions(str(tmp_path / "no.jsonl"), ["x"], manner())
