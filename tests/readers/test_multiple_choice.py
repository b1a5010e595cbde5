"""The readers of multiple-choice benchmarks, on small files of the published forms."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.readers.annotations import Annotations
from vcr1.readers.multiple_choice import (
    choose,
    option_texts,
    read_mvbench,
    read_perception_test,
    read_video_mme,
    video_mme_samples,
)
from vcr1.records import VideoSource


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.webm"):
        (folder / name).touch()
    return folder


def write_json(path: Path, content: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def asked(**changes: object) -> dict[str, object]:
    """A row of MVBench."""
    row = {"video": "a.mp4", "question": "What?", "candidates": ["Up.", "Down."], "answer": "Down."}
    return row | changes


# ------------------------------------------------------------------------------------- options and answers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["A. red", "B. blue"], ("red", "blue")),
        (["(A) red", " (B)  blue "], ("red", "blue")),
        (["A) red", "B.blue"], ("red", "blue")),
        (["red ", " blue"], ("red", "blue")),
        (["A. red", "blue"], ("A. red", "blue")),  # one has no letter
        (["B. red", "A. blue"], ("B. red", "A. blue")),  # not in order
        (["A. Lincoln", "A. Turing"], ("A. Lincoln", "A. Turing")),
        (["A", "B"], ("A", "B")),
        (["A man", "B-movie"], ("A man", "B-movie")),
        (["(A red", "(B blue"], ("(A red", "(B blue")),
        (["A.", "B. blue"], ("", "blue")),
    ],
)
def test_letters_are_taken_off_where_all_options_have_them(
    written: list[str], expected: tuple[str, ...]
) -> None:
    assert option_texts(written) == expected


@given(st.lists(st.text(st.characters(categories=["L", "Zs", "P"]), max_size=8), min_size=2, max_size=26))
def test_options_come_back_from_under_their_letters(texts: list[str]) -> None:
    for form in ("{}. {}", "({}) {}", "{}) {}"):
        lettered = [form.format(chr(65 + i), text) for i, text in enumerate(texts)]
        assert option_texts(lettered) == tuple(text.strip() for text in texts)


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        (["red", "blue"], "blue", "B"),
        (["red", "blue"], " blue ", "B"),
        (["A. red", "B. blue"], "blue", "B"),
        (["A. red", "B. blue"], "B. blue", "B"),
        (["A. red", "B. blue"], "B", "B"),
        (["A. red", "B. blue"], "(B)", "B"),
        (["red", "blue"], "b)", "B"),
        (["red", "blue"], 0, "A"),
        (["red", "blue"], "Blue", "answer_is_no_option"),
        (["red", "blue"], "C", "answer_is_no_option"),
        (["red", "blue"], 2, "answer_is_no_option"),
        (["red", "blue"], -1, "answer_is_no_option"),
        (["red", "blue"], "", "answer_is_no_option"),
        (["3", "2", "1"], "1", "C"),  # a text, not a number
        (["red", "red"], "red", "ambiguous_answer"),
        (["red", "red"], 1, "B"),
        (["B", "A"], "A", "ambiguous_answer"),  # the second's text, the first's letter
        (["A", "B"], "A", "A"),  # both, of the same option
        (["red"], "red", "not_2_to_26_options"),
        ([str(i) for i in range(27)], "1", "not_2_to_26_options"),
        ([str(i) for i in range(26)], "25", "Z"),
        (["red", " "], "red", "empty_option"),
    ],
)
def test_the_right_letter_or_why_there_is_none(options: list[str], answer: str | int, expected: str) -> None:
    account = Annotations("some file")
    choice = choose(options, answer, account)
    assert (choice[1] if choice else next(iter(account.dropped))) == expected
    assert account.dropped.total() == (0 if choice else 1)


def test_where_answers_are_texts_a_letter_is_no_answer() -> None:
    account = Annotations("some file")
    assert choose(["B", "A"], "A", account, letters=False) == (("B", "A"), "B")
    assert choose(["red", "blue"], "B", account, letters=False) is None
    assert account.dropped == {"answer_is_no_option": 1}


# ------------------------------------------------------------------------------------------------- MVBench


def test_mvbench_reads_a_category(tmp_path: Path, videos: Path) -> None:
    (videos / "clip").mkdir()
    rows = [
        asked(),
        asked(video="b.webm", start=2.5, end=10, candidates=["1", "3", "2"], answer="2", accurate_start=3),
        asked(video="clip", start=1, end=4.0, fps=3, subtitle="Hi."),
        asked(video="clip", candidates=[3, 4], answer=4),
    ]
    found = read_mvbench(write_json(tmp_path / "object_shuffle.json", rows), str(videos))
    assert [sample.id for sample in found.samples] == [f"object_shuffle-{i}" for i in range(4)]
    assert [sample.video for sample in found.samples] == [
        str(videos / "a.mp4"),
        VideoSource(str(videos / "b.webm"), 2.5, 10.0),
        VideoSource(str(videos / "clip"), 1.0, 4.0, 3.0),
        VideoSource(str(videos / "clip"), fps=3.0),
    ]
    assert [sample.target for sample in found.samples] == ["B", "C", "B", "B"]
    assert [sample.duration for sample in found.samples] == [None, 7.5, 3.0, None]
    assert found.samples[0].query == "What?"
    assert found.samples[0].options == ("Up.", "Down.")
    assert found.samples[3].options == ("3", "4")
    assert {sample.extra["category"] for sample in found.samples} == {"object_shuffle"}
    assert found.mended == found.dropped == {}


def test_mvbench_drops_rows_and_counts_them_once(tmp_path: Path, videos: Path) -> None:
    (videos / "clip").mkdir()
    rows = [
        asked(video="missing.mp4", answer="Left."),  # two faults, one row: the answer's is found first
        asked(video="missing.mp4"),
        asked(video=""),
        asked(video="n" * 300),
        asked(video="a\0.mp4"),
        asked(candidates=["Up."], answer="Up."),
        asked(answer="Left."),
        asked(question="  "),
        asked(start=5, end=5),
        asked(start="soon"),
        asked(start=-1),
        asked(start=-1, end=3),  # clamped
        asked(video="clip", fps=0),
        asked(video="clip", fps="fast"),
    ]
    found = read_mvbench(write_json(tmp_path / "c.json", rows), str(videos))
    assert [sample.id for sample in found.samples] == ["c-11"]
    assert found.samples[0].video == VideoSource(str(videos / "a.mp4"), 0.0, 3.0)
    assert found.mended == {"clamped_to_the_video": 1}
    assert found.dropped == {
        "missing_video": 4,
        "not_2_to_26_options": 1,
        "answer_is_no_option": 2,
        "empty_query": 1,
        "start_not_before_end": 1,
        "not_a_span": 2,
        "fps_not_positive": 2,
    }


def test_mvbench_reads_a_folder_of_categories(tmp_path: Path, videos: Path) -> None:
    (videos / "deep" / "down").mkdir(parents=True)
    (videos / "deep" / "down" / "x.mp4").touch()
    write_json(tmp_path / "json" / "b.json", [asked(), asked()])
    write_json(tmp_path / "json" / "a.json", [asked(video="x.mp4"), asked()])
    folder = str(tmp_path / "json")
    found = read_mvbench(folder, str(videos), folders={"a": "deep/down/"})
    assert [sample.id for sample in found.samples] == ["a-0", "b-0", "b-1"]
    assert found.samples[0].video == str(videos / "deep" / "down" / "x.mp4")
    assert found.dropped == {"missing_video": 1}
    first = read_mvbench(folder, str(videos), limit=3)
    assert [sample.id for sample in first.samples] == ["a-1", "b-0"]


def test_mvbench_errors_name_their_place(tmp_path: Path, videos: Path) -> None:
    file = write_json(tmp_path / "c.json", [asked(), {"video": "a.mp4", "question": "What?"}])
    with pytest.raises(UserError, match=r"c\.json, row 1: needs the field 'candidates' \(list\)"):
        read_mvbench(file, str(videos))
    assert len(read_mvbench(file, str(videos), limit=1).samples) == 1
    with pytest.raises(UserError, match=r"row 0: 'candidates' must list texts"):
        read_mvbench(write_json(tmp_path / "d.json", [asked(candidates=["a", ["b"]])]), str(videos))
    with pytest.raises(UserError, match=r"row 0: needs the field 'video'"):
        read_mvbench(write_json(tmp_path / "d.json", ["a"]), str(videos))
    with pytest.raises(UserError, match=r"d\.json: expected a list of rows, found a dict"):
        read_mvbench(write_json(tmp_path / "d.json", {}), str(videos))
    with pytest.raises(UserError, match=r"category=x is for a single file"):
        read_mvbench(str(tmp_path), str(videos), category="x")
    with pytest.raises(UserError, match=r"no \*\.json in this folder"):
        read_mvbench(str(videos), str(videos))
    named = read_mvbench(file, str(videos), category="x", limit=1).samples[0]
    assert (named.id, named.extra["category"]) == ("x-0", "x")


# ----------------------------------------------------------------------------------------------- Video-MME


def mme(**changes: object) -> dict[str, Any]:
    row = {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
        "url": "...",
        "videoID": "a",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "How many? ",
        "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."],
        "answer": "C",
    }
    return row | changes


ROWS = [
    mme(),
    mme(question_id="001-2", videoID="b", duration="long", answer=" A\n"),
    mme(
        question_id="001-3", options=["A. C", "B. A", "C. B", "D. D"], answer="B"
    ),  # the letter, not the text
    mme(question_id="002-1", videoID="gone"),
    mme(question_id="002-2", answer="E"),
    mme(question_id="002-3", answer=""),
]


def test_video_mme_samples(videos: Path) -> None:
    found = video_mme_samples("mme", ROWS, str(videos))
    assert [(sample.id, sample.target) for sample in found.samples] == [
        ("001-1", "C"),
        ("001-2", "A"),
        ("001-3", "B"),
    ]
    first = found.samples[0]
    assert (first.video, first.query, first.duration) == (str(videos / "a.mp4"), "How many?", None)
    assert first.options == ("1.", "2.", "3.", "4.")
    assert first.extra == {
        "category": "short",
        "task_type": "Counting Problem",
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
    }
    assert found.samples[1].extra["category"] == "long"
    assert found.dropped == {"missing_video": 1, "answer_is_no_option": 2}
    assert len(video_mme_samples("mme", ROWS, str(videos), limit=2).samples) == 2


def test_video_mme_errors(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(UserError, match=r"mme: 2 rows have the id '001-1'"):
        video_mme_samples("mme", [mme(), mme()], str(videos))
    with pytest.raises(UserError, match=r"mme, row 0: needs the field 'answer' \(str\); found a NoneType"):
        video_mme_samples("mme", [mme(answer=None)], str(videos))
    with pytest.raises(UserError, match=r"none\.parquet does not exist"):
        read_video_mme(str(tmp_path / "none.parquet"), str(videos))
    junk = tmp_path / "junk.parquet"
    junk.write_bytes(b"junk")
    # Without pyarrow the message says how to get it.
    with pytest.raises(
        UserError, match=r"junk\.parquet: (not a readable parquet file|.*pip install pyarrow)"
    ):
        read_video_mme(str(junk), str(videos))


def test_video_mme_reads_parquet(tmp_path: Path, videos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    found = read_video_mme(str(file), str(videos))
    assert found.samples == video_mme_samples("mme", ROWS, str(videos)).samples
    rows = [{name: value for name, value in row.items() if name != "answer"} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    with pytest.raises(UserError, match="no column answer"):
        read_video_mme(str(file), str(videos))


# ----------------------------------------------------------------------------------------- Perception Test


def perception(**changes: object) -> dict[str, object]:
    row = {
        "id": 0,
        "question": "Is the camera moving?",
        "options": ["No", "Yes", "I don't know"],
        "answer_id": 1,
        "area": "physics",
        "reasoning": "descriptive",
        "tag": ["motion"],
    }
    return row | changes


def test_perception_test(tmp_path: Path, videos: Path) -> None:
    content = {
        "a": {
            "metadata": {"num_frames": 300, "frame_rate": 30.0, "split": "valid"},
            "mc_question": [
                perception(),
                perception(id=3, answer_id=0, area="memory"),
                perception(id=4, answer_id=3),
            ],
        },
        "b": {"metadata": {"num_frames": 300, "frame_rate": 0}, "mc_question": [perception(id=7)]},
        "c": {"mc_question": [perception()]},
    }
    file = write_json(tmp_path / "valid.json", content)
    found = read_perception_test(file, str(videos))
    assert [(s.id, s.target, s.duration, s.extra["category"]) for s in found.samples] == [
        ("a-0", "B", 10.0, "physics"),
        ("a-3", "A", 10.0, "memory"),
        ("b-7", "B", None, "physics"),
    ]
    assert found.samples[0].options == ("No", "Yes", "I don't know")
    assert found.samples[0].extra["tag"] == ["motion"]
    assert found.dropped == {"answer_is_no_option": 1, "missing_video": 1}
    assert len(read_perception_test(file, str(videos), limit=2).samples) == 2


def test_perception_test_errors(tmp_path: Path, videos: Path) -> None:
    secret = {name: value for name, value in perception().items() if name != "answer_id"}
    for content, message in [
        ({"a": {"mc_question": [secret]}}, r"a question of video 'a': needs the field 'answer_id' \(int\)"),
        ({"a": {"mc_question": [perception(answer_id=True)]}}, "needs the field 'answer_id'"),
        ({"a": {}}, r"video 'a': needs the field 'mc_question'"),
        ([], r"expected \{video: \{mc_question\}\}, found a list"),
        ({"a": {"mc_question": [perception(), perception()]}}, "2 rows have the id 'a-0'"),
    ]:
        with pytest.raises(UserError, match=message):
            read_perception_test(write_json(tmp_path / "v.json", content), str(videos))
