"""The readers of tracking annotations, on folders and rows written here and on a slice of the real file."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vcr1.errors import UserError
from vcr1.readers.got10k import read_got10k, read_tracking_json
from vcr1.records import Box, VideoSource
from vcr1.tasks import TrackingTask

REAL = Path(__file__).resolve().parents[2] / "../shared/annotations"
needs_real_annotations = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real annotations are not the project's to ship"
)

META = """[METAINFO]
url: https://example.org/watch?v=x=y
begin: 00:00:29
end: 00:00:59
anno_fps: 5Hz
object_class: forest_goat
motion_class: walking
motion_adverb: slowly
category: none of the reader's
resolution: (100, 50)
"""


def picture(width: int, height: int) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (width, height)).save(file, "JPEG")
        return file.getvalue()


JPEG = picture(50, 25)  # half the size that META states


def steps(frames: int) -> list[str]:
    """A box of 20 x 10 pixels that moves a pixel per frame to the right."""
    return [f"{frame}.0000,5.0000,20.0000,10.0000" for frame in range(frames)]


def write_sequence(
    folder: Path,
    lines: list[str],
    frames: int | None = None,
    meta: str | None = META,
    absence: str | None = None,
) -> Path:
    """A sequence of GOT-10k, with as many frames as lines by default."""
    folder.mkdir(parents=True)
    for number in range(len(lines) if frames is None else frames):
        (folder / f"{number + 1:08d}.jpg").write_bytes(JPEG)
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    (folder / "cover.label").write_text("8\n" * len(lines))
    if meta is not None:
        (folder / "meta_info.ini").write_text(meta)
    if absence is not None:
        (folder / "absence.label").write_text("\n".join(absence) + "\n")
    return folder


def write_list(folder: Path, *names: str) -> str:
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    return str(folder)


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------------------------- folders of GOT-10k


def test_a_sequence_gives_its_boxes_at_evenly_spaced_frames(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "GOT-10k_Train_000001", steps(15), absence="0" * 15)
    found = read_got10k(write_list(tmp_path, folder.name))
    (sample,) = found.samples
    assert sample.id == "GOT-10k_Train_000001"
    assert sample.video == VideoSource(str(folder), fps=5.0)
    assert sample.query == "forest goat"
    assert sample.duration == 3.0  # 15 frames at 5 Hz
    # Frames 0, 2, ..., 14 of 100 x 50 pixels: from x = 0, 2, ..., 14 and 20 wide, from y = 5 and 10 high.
    assert sample.target == tuple(Box(x / 100, 0.1, (x + 20) / 100, 0.3) for x in range(0, 15, 2))
    assert sample.extra == {
        "object_class": "forest_goat",
        "motion_class": "walking",
        "motion_adverb": "slowly",
    }
    assert (found.mended, found.dropped) == ({}, {})


def test_asked_frames_between_two_are_rounded_half_up(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a", steps(10))
    (sample,) = read_got10k(write_list(tmp_path, "a"), boxes=3).samples
    assert [round(box.x0 * 100) for box in sample.target] == [0, 5, 9]  # 0, 4.5, 9


def test_the_task_asks_for_what_the_reader_gives(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a", steps(15))
    (sample,) = read_got10k(write_list(tmp_path, "a")).samples
    task = TrackingTask()
    (judgement,) = task.judge([task.answer(sample)], [sample]).result()
    assert judgement.total == 2.0  # the form and the boxes
    assert "forest goat is in the box [0.000, 0.100, 0.200, 0.300]" in task.prompt(sample).text


def test_unusable_sequences_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = steps(15)
    write_sequence(tmp_path / "good", lines)
    write_sequence(tmp_path / "empty", lines, frames=0)
    write_sequence(tmp_path / "fewer", lines, frames=14)
    write_sequence(tmp_path / "test_split", lines[:1], frames=15)
    write_sequence(tmp_path / "short", lines[:7])
    write_sequence(tmp_path / "absent", lines, absence="0" * 14 + "1")
    write_sequence(tmp_path / "labels", lines, absence="0" * 14)
    for name, line in (("nan", "nan,nan,nan,nan"), ("zero", "3,4,0,7"), ("minus", "30,4,-5,7")):
        write_sequence(tmp_path / name, [*lines[:2], line, *lines[3:]])
    write_sequence(tmp_path / "outside", [*lines[:14], "100,5,20,10"])
    write_sequence(tmp_path / "endless", [*lines[:14], "1e308,5,1e308,10"])
    # In frames that nobody asks for, all this is no matter.
    write_sequence(tmp_path / "between", [lines[0], "nan,nan,0,0", *lines[2:]], absence="01" + "0" * 13)
    names = [folder.name for folder in tmp_path.iterdir()]
    found = read_got10k(write_list(tmp_path, "gone", *sorted(names)))
    assert [sample.id for sample in found.samples] == ["between", "good"]
    assert found.dropped == {
        "missing_folder": 1,
        "no_frames": 1,
        "other_number_of_frames_than_boxes": 2,
        "fewer_frames_than_asked": 1,
        "object_absent": 1,
        "other_number_of_labels_than_frames": 1,
        "box_without_area_in_the_frame": 2,
        "not_a_box": 2,
        "reversed_box": 1,
    }
    assert found.mended == {}


def test_boxes_that_reach_over_the_frame_are_clipped(tmp_path: Path) -> None:
    lines = ["-10,-10,20,20", "90,40,20,20", "80.0001,10,19.9999,40"]
    write_sequence(tmp_path / "over", lines)
    write_sequence(tmp_path / "within", lines[2:] * 3)
    found = read_got10k(write_list(tmp_path, "over", "within"), boxes=3)
    over, within = found.samples
    assert over.target[:2] == (Box(0, 0, 0.1, 0.2), Box(0.9, 0.8, 1, 1))
    assert within.target[0].x1 == pytest.approx(1.0)
    assert found.mended == {"clamped_to_the_frame": 1}


def test_without_meta_the_first_frame_tells_the_size(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "a", ["10,5,25,10"] * 8, meta=None)
    found = read_got10k(write_list(tmp_path, "a"), fps=4.0)
    (sample,) = found.samples
    assert sample.target[0] == Box(0.2, 0.2, 0.7, 0.6)  # of 50 x 25 pixels
    assert (sample.query, sample.duration, sample.extra) == ("the object", 2.0, {})
    assert sample.video == VideoSource(str(folder), fps=4.0)
    assert found.mended == {"object_not_named": 1}


def test_a_first_frame_that_is_no_picture_costs_the_sequence(tmp_path: Path) -> None:
    write_sequence(tmp_path / "good", steps(8))
    folder = write_sequence(tmp_path / "junk", steps(8), meta=None)
    (folder / "00000001.jpg").write_bytes(b"no picture" * 20)
    found = read_got10k(write_list(tmp_path, "good", "junk"))
    assert found.dropped == {"unreadable_frame": 1}


def test_values_may_stand_in_any_order_with_comments_and_other_sections(tmp_path: Path) -> None:
    meta = (
        "[OTHER]\nno pair\n[METAINFO]\n; a comment\nresolution = (200,100)\nobject_class=\nAnno_FPS : 2.5 hz"
    )
    write_sequence(tmp_path / "a", ["50,25,100,50"] * 8, meta=meta)
    (sample,) = read_got10k(write_list(tmp_path, "a")).samples
    assert sample.target[0] == Box(0.25, 0.25, 0.75, 0.75)
    assert (sample.query, sample.duration) == ("the object", 3.2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "groundtruth.txt",
            "1,2,3,4\n\n1,2,3\n",
            r"groundtruth\.txt, line 3: expected 'x,y,w,h', not '1,2,3'",
        ),
        ("groundtruth.txt", "1 2 3 4\n", r"groundtruth\.txt, line 1: expected 'x,y,w,h'"),
        ("groundtruth.txt", "1,2,3,4,5\n", r"groundtruth\.txt, line 1: expected"),
        ("groundtruth.txt", "1,2,3," + "4" * 100_000, r"groundtruth\.txt, line 1: expected"),
        ("groundtruth.txt", "", r"annotation file .*groundtruth\.txt is empty"),
        ("absence.label", "0\n2\n", r"absence\.label, line 2: expected 0 or 1, not '2'"),
        ("meta_info.ini", "[METAINFO]\nno pair\n", r"meta_info\.ini, line 2: expected 'key: value'"),
        ("meta_info.ini", META.replace("50)", "50"), r"line 10: expected 'resolution: \(1920, 1080\)'"),
        ("meta_info.ini", META.replace("(100", "(0"), r"line 10: expected 'resolution"),
        ("meta_info.ini", META.replace("(100", "(__import__('os')"), r"line 10: expected 'resolution"),
        ("meta_info.ini", META.replace("5Hz", "often"), r"line 5: expected 'anno_fps: 10Hz', not 'often'"),
        ("meta_info.ini", META.replace("5Hz", "0Hz"), r"line 5: expected 'anno_fps: 10Hz'"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    write_sequence(tmp_path / "a", steps(8))
    (tmp_path / "a" / file).write_text(content)
    with pytest.raises(UserError, match=message):
        read_got10k(write_list(tmp_path, "a"))


def test_a_sequence_without_groundtruth_is_named(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "a", steps(8))
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(UserError, match=r"annotation file .*groundtruth\.txt does not exist"):
        read_got10k(write_list(tmp_path, "a"))


@pytest.mark.parametrize("name", ["../a", "/a", "..", "a/b", "a\0b", "n" * 300])
def test_a_list_holds_names_and_no_paths(tmp_path: Path, name: str) -> None:
    write_sequence(tmp_path / "a", steps(8))
    with pytest.raises(UserError, match=r"list\.txt, line 2: expected the name of a sequence, not"):
        read_got10k(write_list(tmp_path, "a", name))


def test_limit_list_file_and_repeated_names(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_sequence(tmp_path / name, steps(8))
    folder = write_list(tmp_path, "a", "b", "a", "a")
    own = tmp_path / "own.txt"
    own.write_text("c\na\n")

    def ids(**options: Any) -> list[str]:
        return [sample.id for sample in read_got10k(folder, **options).samples]

    assert ids() == ["a", "b", "a#2", "a#3"]
    assert ids(limit=2) == ["a", "b"]
    assert ids(list_file=str(own)) == ["c", "a"]


def test_missing_folders_lists_and_senseless_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder .*nowhere does not exist; unpack a split of GOT-10k there"):
        read_got10k(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"annotation file .*list\.txt does not exist"):
        read_got10k(str(tmp_path))
    with pytest.raises(UserError, match=r"0 samples; dropped 1 \(missing folder: 1\) - nothing to work with"):
        read_got10k(write_list(tmp_path, "a"))
    for options in ({"boxes": 1}, {"fps": 0.0}, {"fps": math.nan}):
        with pytest.raises(UserError, match="at least 2 boxes and a positive frame rate"):
            read_got10k(str(tmp_path), **options)


# ------------------------------------------------------------------------------------------- rows of JSON


GOOD = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with the sequence ``val/a`` of 8 frames, ``val/short`` of 1, and the file ``b.mp4``."""
    for name, frames in (("a", 8), ("short", 1)):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(frames):
            (tmp_path / "val" / name / f"{number}.jpg").touch()
    (tmp_path / "val" / "empty").mkdir()
    (tmp_path / "b.mp4").touch()
    return tmp_path


def row(*boxes: Any, path: Any = "val/a", name: Any = "hand_cart", **more: Any) -> dict[str, Any]:
    return {"path": path, "object": name, "gt": list(boxes), **more}


def test_rows_are_kept_as_they_stand(videos: Path) -> None:
    rows = [row(GOOD, [0, 0, 1, 1]), row(GOOD, GOOD, path="b", name=" sloth ")]
    found = read_tracking_json(write_json(videos / "a.json", rows), str(videos), boxes=2, fps=16.0)
    folder, file = found.samples
    assert (folder.id, folder.query, folder.duration) == ("val/a", "hand cart", 0.5)
    assert folder.video == VideoSource(str(videos / "val/a"), fps=16.0)
    assert folder.target == (Box(*GOOD), Box(0, 0, 1, 1))
    assert folder.extra == {"object_class": "hand_cart"}
    assert (file.id, file.query, file.duration) == ("b", "sloth", None)
    assert file.video == VideoSource(str(videos / "b.mp4"))
    assert (found.mended, found.dropped) == ({}, {})


def test_dirty_rows_are_mended_or_dropped_and_counted(videos: Path) -> None:
    rows = [
        row(GOOD, [-0.001, 0.5, 1.002, 1.0]),  # clipped
        row(GOOD),
        row(GOOD, GOOD, GOOD),
        row(GOOD, [0.3, 0.2, 0.3, 0.4]),  # no width
        row(GOOD, [0.3, 0.2, 0.1, 0.4]),  # reversed
        row(GOOD, [0.1, math.nan, 0.3, 0.4]),
        row(GOOD, [0.1, 0.2, math.inf, 0.4]),
        row(GOOD, [1.1, 0.2, 1.3, 0.4]),  # beside the frame
        row([10, 20, 300, 40], [0, 0, 300, 400]),  # pixels
        row(GOOD, GOOD, path="val/gone"),
        row(GOOD, GOOD, path="val/empty"),
        row(GOOD, GOOD, path="n" * 300),
        row(GOOD, GOOD, path="val/short"),
        row(GOOD, GOOD, name=" _ "),
        row(GOOD, GOOD),
    ]
    found = read_tracking_json(write_json(videos / "a.json", rows), str(videos), boxes=2)
    assert [sample.target[1] for sample in found.samples] == [Box(0, 0.5, 1, 1), Box(*GOOD)]
    assert found.mended == {"clamped_to_the_frame": 1}
    assert found.dropped == {
        "other_number_of_boxes": 2,
        "box_without_area_in_the_frame": 2,
        "not_a_box": 2,
        "reversed_box": 1,
        "box_not_in_fractions": 1,
        "missing_video": 2,
        "fewer_frames_than_asked": 2,
        "empty_query": 1,
    }


def test_pixels_are_taken_with_the_size_of_the_row(videos: Path) -> None:
    rows = [
        row([10, 10, 20, 20], [90, 40, 20, 5], width=100, height=50),
        row([10, 10, 20, 20], [90, 40, 20, 5], width=200, height=100),
        row([10, 10, 20, 20], [1e308, 0, 1e308, 1], width=200, height=100),
    ]
    file = write_json(videos / "a.json", rows)
    found = read_tracking_json(file, str(videos), boxes=2, form="xywh_pixels")
    assert [sample.target for sample in found.samples] == [
        (Box(0.1, 0.2, 0.3, 0.6), Box(0.9, 0.8, 1.0, 0.9)),
        (Box(0.05, 0.1, 0.15, 0.3), Box(0.45, 0.4, 0.55, 0.45)),
    ]
    assert found.mended == {"clamped_to_the_frame": 1}
    assert found.dropped == {"not_a_box": 1}


def test_ids_are_unique_and_the_same_again(videos: Path) -> None:
    rows = [row(GOOD, GOOD), row(GOOD, GOOD), row(GOOD, GOOD, path="b.mp4"), row(GOOD, GOOD)]
    file = write_json(videos / "a.json", rows)
    for _ in range(2):
        found = read_tracking_json(file, str(videos), boxes=2)
        assert [sample.id for sample in found.samples] == ["val/a", "val/a#2", "b.mp4", "val/a#3"]
    assert len(read_tracking_json(file, str(videos), boxes=2, limit=3).samples) == 3


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("text", "TypeError"),
        ({"path": "val/a", "object": "x"}, "KeyError: 'gt'"),
        (row(GOOD, path=3), "texts"),
        (row(GOOD, path=" "), "texts"),
        (row(GOOD, name=None), "texts"),
        (row(GOOD) | {"gt": "0123"}, "gt is a list"),
        (row([1, 2, 3]), "ValueError"),
        (row([1, 2, 3, 4, 5]), "ValueError"),
        (row(["a", "b", "c", "d"]), "a str where a number should be"),
        (row("abcd"), "a str where a number should be"),
        (row([True, 0, 1, 1]), "a bool where"),
        (row([10**400, 0, 1, 1]), "OverflowError"),
    ],
)
def test_a_broken_row_is_named(videos: Path, broken: Any, reason: str) -> None:
    file = write_json(videos / "a.json", [row(GOOD, GOOD), broken])
    with pytest.raises(UserError, match=r"a\.json, row 2: needs path, object and gt") as caught:
        read_tracking_json(file, str(videos), boxes=2)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({}, "KeyError: 'width'"),
        ({"width": 0, "height": 5}, "no size"),
        ({"width": 5, "height": math.nan}, "no size"),
    ],
)
def test_pixels_need_the_size_of_the_frame(videos: Path, size: dict[str, float], reason: str) -> None:
    file = write_json(videos / "a.json", [row(GOOD, GOOD, **size)])
    with pytest.raises(UserError, match="row 1: needs path, object, width, height and gt") as caught:
        read_tracking_json(file, str(videos), boxes=2, form="xywh_pixels")
    assert reason in str(caught.value)


def test_what_is_no_list_of_rows_or_no_form_is_named(videos: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: expected a list of rows, found a dict"):
        read_tracking_json(write_json(videos / "a.json", row(GOOD)), str(videos))
    with pytest.raises(UserError, match=r"form=xyxy of .*: choose from corners, xywh_pixels"):
        read_tracking_json(str(videos / "a.json"), str(videos), form="xyxy")
    with pytest.raises(UserError, match=r"video folder .*nowhere does not exist"):
        read_tracking_json(write_json(videos / "a.json", [row(GOOD)]), str(videos / "nowhere"))


@pytest.fixture(scope="module")
def one_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_video")
    (folder / "b.mp4").touch()
    return folder


@settings(max_examples=100)
@given(rectangle=st.lists(st.floats() | st.floats(-1.5, 1.5), min_size=4, max_size=4), pixels=st.booleans())
def test_whatever_the_numbers_a_kept_box_has_an_area_in_the_frame(
    one_video: Path, rectangle: list[float], pixels: bool
) -> None:
    rows = [row(GOOD, GOOD, path="b"), row(rectangle, rectangle, path="b")]
    file = write_json(one_video / "a.json", [entry | {"width": 1, "height": 1} for entry in rows])
    found = read_tracking_json(file, str(one_video), 2, form="xywh_pixels" if pixels else "corners")
    assert len(found.samples) + found.dropped.total() == 2
    for sample in found.samples:
        for box in sample.target:
            assert 0 <= box.x0 < box.x1 <= 1
            assert 0 <= box.y0 < box.y1 <= 1


@needs_real_annotations
def test_the_real_rows_are_all_good(tmp_path: Path) -> None:
    file = REAL / "videochat_r1/got_val.json"
    content = json.loads(file.read_text())
    for entry in content:
        folder = tmp_path / entry["path"]
        folder.mkdir(parents=True)
        for number in range(100):
            (folder / f"{number + 1:08d}.jpg").touch()
    found = read_tracking_json(str(file), str(tmp_path))
    assert len(found.samples) == len({sample.id for sample in found.samples}) == len(content) == 40
    assert (found.mended, found.dropped) == ({}, {})
    assert {(len(sample.target), sample.duration) for sample in found.samples} == {(8, 10.0)}
    first = found.samples[0]
    assert (first.id, first.query) == ("val/GOT-10k_Val_000010", "sloth")
    assert first.target[0] == Box(0.093, 0.0, 0.8, 0.797)
    assert first.target[7] == Box(0.127, 0.0, 0.713, 0.799)
