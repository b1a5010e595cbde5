"""The reader of VideoChat-R1's quality file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.readers.quality import class_names, read_vidtab_quality, split_instruction

REAL = Path(__file__).parents[3] / "shared" / "annotations"
QUESTION = "How about the quality of the video from an aesthetic and technical point of view?"
LIST = "Choice one answer from ['low quality', 'high quality']."


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def write_rows(path: Path, *rows: tuple[str, str, str]) -> str:
    keys = ("video", "instruction", "answer")
    path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]), encoding="utf-8")
    return str(path)


def test_rows_become_samples(tmp_path: Path, videos: Path) -> None:
    for name in ("1.mp4", "1.webm", "1-2.mp4"):
        (videos / name).touch()
    text = f"{QUESTION} {LIST}"
    file = write_rows(
        tmp_path / "q.json",
        ("1.mp4", text, "low quality"),
        ("1.webm", text, " high quality "),
        ("1-2.mp4", text, "high quality"),
        ("1.mp4", text, "low quality"),
        ("1.mp4", text, "medium quality"),
        ("2.mp4", text, "low quality"),
        ("1.mp4", LIST, "low quality"),
    )
    found = read_vidtab_quality(file, str(videos))
    assert [sample.id for sample in found.samples] == ["1", "1-2", "1-2-2", "1-3"]
    assert [sample.target for sample in found.samples] == [
        "low quality",
        "high quality",
        "high quality",
        "low quality",
    ]
    assert {sample.query for sample in found.samples} == {QUESTION}
    assert {sample.options for sample in found.samples} == {("low quality", "high quality")}
    assert found.samples[1].video == str(videos / "1.webm")
    assert found.dropped == {"answer_is_no_option": 1, "missing_video": 1, "empty_query": 1}
    assert len(read_vidtab_quality(file, str(videos), limit=2).samples) == 2


def test_ids_do_not_hang_on_what_is_dropped(tmp_path: Path, videos: Path) -> None:
    (videos / "x").mkdir()
    (videos / "x" / "1.mp4").touch()
    rows = [("1.mp4", f"{QUESTION} {LIST}", "low quality"), ("x/1.mp4", f"{QUESTION} {LIST}", "low quality")]
    file = write_rows(tmp_path / "q.json", *rows)
    assert [sample.id for sample in read_vidtab_quality(file, str(videos)).samples] == ["1-2"]
    (videos / "1.mp4").touch()
    assert [sample.id for sample in read_vidtab_quality(file, str(videos)).samples] == ["1", "1-2"]


def test_classes_given_by_the_user(tmp_path: Path, videos: Path) -> None:
    (videos / "1.mp4").touch()
    file = write_rows(tmp_path / "q.json", ("1.mp4", "Good?", "no"), ("1.mp4", f"Good? {LIST}", "yes"))
    found = read_vidtab_quality(file, str(videos), classes=["yes", "no"])
    assert [(s.query, s.target, s.options) for s in found.samples] == [
        ("Good?", "no", ("yes", "no")),
        ("Good?", "yes", ("yes", "no")),
    ]
    with pytest.raises(UserError, match=r"q\.json, row 0: 'instruction' names no classes"):
        read_vidtab_quality(file, str(videos))
    with pytest.raises(UserError, match=r"q\.json: classes: needs two or more different names"):
        read_vidtab_quality(file, str(videos), classes=["yes", "Yes "])


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Q? Choice one answer from ['a', 'b'].", ("Q?", ("a", "b"))),
        ("Q? Choose one answer from ['a','b' , 'c']", ("Q?", ("a", "b", "c"))),
        ("""Q? Choice one answer from ["it's", 'b'].""", ("Q?", ("it's", "b"))),
        ("Q? Choice one answer from [ 'a', 'b' ]. Now!", ("Q? Now!", ("a", "b"))),
        ("Q? [a]", ("Q? [a]", ())),
        ("Q? Choice one answer from [].", ("Q? Choice one answer from [].", ())),
    ],
)
def test_lists_of_classes(instruction: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert split_instruction("here", instruction) == expected


@pytest.mark.parametrize(
    "content",
    [
        "a, b",
        "'a', b",
        "'a' 'b'",
        "'a', 'b',",
        ", 'a', 'b'",
        "'a",
        r"'a\'', 'b'",
        "'', 'b'",
        "__import__('os').getcwd(), 'b'",
        "'a', 'b' for x in y",
        "'a'" + " " * 3000,
        "'" * 4000,
        "'a'",
        "'a', 'A '",
        "'a', ' '",
    ],
)
def test_lists_of_another_form_are_errors(content: str) -> None:
    with pytest.raises(UserError, match="row 3"):
        split_instruction("f, row 3", f"Q? Choice one answer from [{content}].")


def test_several_lists_are_an_error() -> None:
    with pytest.raises(UserError, match="must hold one list"):
        split_instruction("here", f"Q? {LIST} {LIST}")


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="[]\\'\""), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool),
    min_size=2,
    max_size=6,
    unique_by=lambda name: " ".join(name.lower().split()),
)


@given(NAMES, st.sampled_from("'\""))
def test_any_names_come_back(names: list[str], quote: str) -> None:
    content = ", ".join(f"{quote}{name}{quote}" for name in names)
    assert split_instruction("here", f"Q? Choice one answer from [{content}].") == ("Q?", tuple(names))


@given(st.text(max_size=60))
def test_hostile_lists_give_names_or_an_error(content: str) -> None:
    try:
        _, names = split_instruction("here", f"Q? Choice one answer from [{content}].")
    except UserError:
        return
    assert not names or names == class_names("here", names)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not the project's to ship")
def test_the_real_slice(videos: Path) -> None:
    file = REAL / "videochat_r1" / "quality_16shot.json"
    rows = json.loads(file.read_text())
    for row in rows:
        (videos / row["video"]).touch()
    found = read_vidtab_quality(str(file), str(videos))
    targets = [sample.target for sample in found.samples]
    assert (len(targets), targets.count("low quality"), targets.count("high quality")) == (32, 16, 16)
    assert found.mended == found.dropped == {}
    assert len({sample.id for sample in found.samples}) == 32
    assert found.samples[0].id == "0506"
    assert {sample.query for sample in found.samples} == {QUESTION}
    assert {sample.options for sample in found.samples} == {("low quality", "high quality")}
