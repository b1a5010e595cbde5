"""The reader of captions."""

import json
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.readers.captions import read_captions
from vcr1.records import VideoSource


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").touch()
    (folder / "frames").mkdir()
    return folder


def write_lines(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_lines_become_samples(tmp_path: Path, videos: Path) -> None:
    file = write_lines(
        tmp_path / "train.jsonl",
        {"video": "a.mp4", "caption": " A dog runs. ", "source": "not read", "query": "not read"},
        {"video": "a", "caption": "It rests.", "id": 7, "start": 4, "end": 12, "duration": 10.0},
        {"video": "frames", "caption": "x", "fps": 2, "events": ["one", " ", "two "], "instruction": "Tell."},
        {"video": "a", "caption": "x", "events": [], "id": None},
    )
    found = read_captions(file, str(videos))
    path = str(videos / "a.mp4")
    assert [(s.id, s.video, s.target, s.duration) for s in found.samples] == [
        ("train-1", path, "A dog runs.", None),
        ("7", VideoSource(path, 4.0, 10.0), "It rests.", 6.0),
        ("train-3", VideoSource(str(videos / "frames"), fps=2.0), "x", None),
        ("train-4", path, "x", None),
    ]
    asked = "Describe what happens in the video, event by event."
    assert [sample.query for sample in found.samples] == [asked, asked, "Tell.", asked]
    assert [sample.extra for sample in found.samples] == [{}, {}, {"events": ("one", "two")}, {}]
    assert found.mended == {"clamped_to_the_video": 1}
    assert read_captions(file, str(videos), instruction="Say it.", limit=1).samples[0].query == "Say it."


def test_useless_lines_are_dropped_and_counted(tmp_path: Path, videos: Path) -> None:
    file = write_lines(
        tmp_path / "c.jsonl",
        {"video": "a", "caption": "x"},
        {"video": "gone", "caption": "x"},
        {"video": "a", "caption": " "},
        {"video": "a", "caption": "x", "instruction": ""},
        {"video": "frames", "caption": "x"},
        {"video": "a", "caption": "x", "duration": 0},
        {"video": "a", "caption": "x", "start": 11, "duration": 10},
        {"video": "a", "caption": "x", "start": -1},
    )
    found = read_captions(file, str(videos))
    assert len(found.samples) == 1
    assert found.dropped == {
        "missing_video": 1,
        "empty_caption": 1,
        "empty_query": 1,
        "frames_without_fps": 1,
        "duration_not_positive": 1,
        "start_not_before_end": 1,
        "not_a_span": 1,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "a"}, r"c\.jsonl, line 1: needs the field 'caption': a text"),
        ({"caption": "x"}, r"line 1: needs the field 'video'"),
        ({"video": "a", "caption": 5}, r"line 1: field 'caption' must be a text, not 5"),
        (
            {"video": "a", "caption": "x", "events": "one"},
            r"field 'events' must be a list of texts, not 'one'",
        ),
        ({"video": "a", "caption": "x", "start": "1"}, r"field 'start' must be a number, not '1'"),
    ],
)
def test_errors_name_line_and_field(tmp_path: Path, videos: Path, row: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_captions(write_lines(tmp_path / "c.jsonl", row), str(videos))


def test_an_id_that_stands_twice(tmp_path: Path, videos: Path) -> None:
    row = {"video": "a", "caption": "x", "id": "one"}
    with pytest.raises(UserError, match=r"c\.jsonl: lines 1 and 2 have the same id 'one'"):
        read_captions(write_lines(tmp_path / "c.jsonl", row, row), str(videos))
