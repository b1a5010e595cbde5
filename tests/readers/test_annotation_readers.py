"""The readers of annotation files, on small dirty files and on slices of the real ones."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcr1.errors import UserError
from vcr1.readers import VideoFolder, read_activitynet, read_charades_sta, read_synthetic
from vcr1.readers.annotations import (
    Annotations,
    concatenate,
    mend_interval,
)
from vcr1.readers.files import read_json, read_lines
from vcr1.records import Interval, Sample
from vcr1.video import write_mp4

REAL = Path(__file__).parents[3] / "shared" / "annotations"
needs_real_annotations = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real annotations are not the project's to ship"
)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def ten_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real video of ten seconds."""
    path = tmp_path_factory.mktemp("clips") / "ten.mp4"
    write_mp4(path, np.zeros((10, 32, 32, 3), np.uint8), fps=1)
    return path


@pytest.fixture(scope="session")
def thirty_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real video of thirty seconds."""
    path = tmp_path_factory.mktemp("clips") / "thirty.mp4"
    write_mp4(path, np.zeros((30, 32, 32, 3), np.uint8), fps=1)
    return path


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def entry(
    *spans: object, duration: object = 10.0, sentences: list[object] | str | None = None
) -> dict[str, object]:
    texts = [f"event {number}" for number in range(len(spans))] if sentences is None else sentences
    return {"duration": duration, "timestamps": list(spans), "sentences": texts}


def kept(annotations: Annotations) -> dict[str, tuple[float, float]]:
    return {sample.id: (sample.target.start, sample.target.end) for sample in annotations.samples}


# ------------------------------------------------------------------------------------------ ActivityNet


def test_dirty_rows_of_activitynet_are_mended_or_dropped_and_counted(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    (videos / "b.mkv").touch()
    (videos / "d.mp4").touch()
    content = {
        "a": entry(
            [1.5, 4],  # as it is
            [8, 10.01],  # ends past 10: clamped
            [-2, 3],  # starts before 0: clamped
            [-1, 11],  # both: one row, clamped
            [5, 5],  # no length
            [7, 6],  # reversed
            [10, 12],  # outside: the video is over
            [-3, 0],  # outside: it has not begun
            [math.nan, 4],
            [1, math.inf],
            [None, 4],
            ["one", 4],
            [2, 3],
            [3, 4],
            [0, 10],  # the whole video
            sentences=[f"event {i}" for i in range(12)] + ["  ", None, " the end. "],
        ),
        "b": entry([0, 1], duration="5"),
        "c": entry([0, 1], [2, 1]),  # no such video
        "d": entry([0, 1], duration=0),
        "d.mp4": entry([0, 1], [3, 2], duration=-4),
    }
    file = write_json(tmp_path / "train.json", content)
    found = read_activitynet(file, str(videos))
    assert kept(found) == {
        "a-0": (1.5, 4.0),
        "a-1": (8.0, 10.0),
        "a-2": (0.0, 3.0),
        "a-3": (0.0, 10.0),
        "a-14": (0.0, 10.0),
        "b-0": (0.0, 1.0),
    }
    assert found.mended == {"clamped_to_the_video": 3}
    assert found.dropped == {
        "start_not_before_end": 2,
        "outside_the_video": 2,
        "not_a_span": 4,
        "empty_query": 2,
        "missing_video": 2,
        "duration_not_positive": 3,
    }
    assert str(found).startswith(
        f"{file}: 6 samples; mended 3 (clamped to the video: 3); dropped 15 (duration not positive: 3, "
        "empty query: 2, missing video: 2, not a span: 4, outside the video: 2, start not before end: 2); "
        f"for example c-0: no video 'c'; tried {videos / 'c'}, with the endings .mp4 "
    )


def test_a_sample_of_activitynet_holds_what_the_file_says(tmp_path: Path, videos: Path) -> None:
    (videos / "v_x.mp4").touch()
    file = write_json(tmp_path / "a.json", {"v_x": entry([1, 2], sentences=[" A dog runs. "], duration=7.5)})
    (sample,) = read_activitynet(file, str(videos)).samples
    assert (sample.id, sample.query, sample.duration) == ("v_x-0", "A dog runs.", 7.5)
    assert sample.video == str(videos / "v_x.mp4")
    assert sample.target == Interval(1.0, 2.0)


def test_clean_annotations_report_samples_only(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    file = write_json(tmp_path / "clean.json", {"a": entry([1, 2], [3, 4])})
    assert str(read_activitynet(file, str(videos))) == f"{file}: 2 samples"


def test_ids_do_not_depend_on_what_is_dropped(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    dirty = write_json(tmp_path / "dirty.json", {"gone": entry([0, 1]), "a": entry([2, 1], [3, 4])})
    assert list(kept(read_activitynet(dirty, str(videos)))) == ["a-1"]
    (videos / "gone.webm").touch()
    assert list(kept(read_activitynet(dirty, str(videos)))) == ["gone-0", "a-1"]


def test_limit_reads_the_first_rows(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    file = write_json(tmp_path / "a.json", {"a": entry([2, 1], [1, 2], [3, 4], [5, 6])})
    assert list(kept(read_activitynet(file, str(videos), limit=3))) == ["a-1", "a-2"]
    assert len(read_activitynet(file, str(videos), limit=9).samples) == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"duration": 5, "timestamps": [[0, 1]]},
        {"timestamps": [[0, 1]], "sentences": ["a"]},
        {"duration": None, "timestamps": [[0, 1]], "sentences": ["a"]},
        {"duration": "long", "timestamps": [[0, 1]], "sentences": ["a"]},
        {"duration": 5, "timestamps": [[0, 1]], "sentences": ["a", "b"]},
        {"duration": 5, "timestamps": [[0, 1], [1, 2]], "sentences": ["a"]},
        {"duration": 5, "timestamps": [[0, 1, 2]], "sentences": ["a"]},
        {"duration": 5, "timestamps": [[0]], "sentences": ["a"]},
        {"duration": 5, "timestamps": [0, 1], "sentences": ["a", "b"]},
        {"duration": 5, "timestamps": 3, "sentences": ["a"]},
        [[0, 1], "a"],
        None,
    ],
)
def test_a_wrong_structure_names_file_and_video(tmp_path: Path, videos: Path, broken: object) -> None:
    file = write_json(tmp_path / "wrong.json", {"fine": entry([0, 1]), "v_odd": broken})
    with pytest.raises(UserError, match=r"wrong\.json: video 'v_odd' needs duration, and timestamps"):
        read_activitynet(file, str(videos))


def test_a_list_is_no_captions_file(tmp_path: Path, videos: Path) -> None:
    file = write_json(tmp_path / "list.json", [{"video": "a"}])
    with pytest.raises(UserError, match=r"list\.json: expected \{video: .*found a list"):
        read_activitynet(file, str(videos))


def test_broken_json_names_file_and_line(tmp_path: Path, videos: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text('{\n "a": {\n  "duration": 5,,\n }\n}')
    with pytest.raises(UserError, match=r"broken\.json: not valid JSON at line 3: "):
        read_activitynet(str(file), str(videos))


# -------------------------------------------------------------------------------------------- Charades


def test_dirty_rows_of_charades_are_mended_or_dropped_and_counted(
    tmp_path: Path, videos: Path, ten_seconds: Path
) -> None:
    (videos / "AAAAA.mp4").symlink_to(ten_seconds)
    (videos / "JUNK1.mp4").write_bytes(b"this is no video" * 64)
    (videos / "EMPTY.mp4").touch()
    file = tmp_path / "train.txt"
    file.write_text(
        "AAAAA 1.5 4.0##person opens a door.\n"
        "AAAAA 8.0 12.0##person sits ## down.\n"  # clamped; only the first ## divides
        "AAAAA -1 2##person stands.\n"  # clamped
        "\n"
        "AAAAA 8.0 12.4##ends more than 2 s behind the video.\n"
        "AAAAA 8.0 7.0##reversed.\n"
        "AAAAA 10.0 12.0##after the end.\n"
        "AAAAA nan 3##not a number.\n"
        "AAAAA 1 2##   \n"
        "GONE1 1 2##nowhere.\n"
        "GONE1 2 1##nowhere.\n"
        "JUNK1 1 2##cannot be read.\n"
        "EMPTY 1 2##cannot be read.\n"
        "   AAAAA   0.0  10.0   ##spaces.  \n",
        encoding="utf-8",
    )
    found = read_charades_sta(str(file), str(videos))
    assert kept(found) == {
        "AAAAA-0": (1.5, 4.0),
        "AAAAA-1": (8.0, 10.0),
        "AAAAA-2": (0.0, 2.0),
        "AAAAA-8": (0.0, 10.0),
    }
    assert [sample.query for sample in found.samples] == [
        "person opens a door.",
        "person sits ## down.",
        "person stands.",
        "spaces.",
    ]
    assert {sample.duration for sample in found.samples} == {10.0}
    assert found.mended == {"clamped_to_the_video": 2}
    assert found.dropped == {
        "ends_far_behind_the_video": 1,
        "start_not_before_end": 1,
        "outside_the_video": 1,
        "not_a_span": 1,
        "empty_query": 1,
        "missing_video": 2,
        "unreadable_video": 2,
    }
    text = str(found)
    assert text.startswith(
        f"{file}: 4 samples; mended 2 (clamped to the video: 2); dropped 9 (empty query: 1, "
    )
    assert f"for example GONE1-0: no video 'GONE1'; tried {videos / 'GONE1'}, with the endings" in text


@pytest.mark.parametrize("line", ["A 1.0 2.0 no marks", "A 1.0##one time", "A 1.0 two##a word", "##"])
def test_a_broken_line_of_charades_is_named(tmp_path: Path, videos: Path, line: str) -> None:
    file = tmp_path / "broken.txt"
    file.write_text(f"AAAAA 1.0 2.0##fine.\n\n{line}\n")
    with pytest.raises(
        UserError, match=r"broken\.txt, line 3: expected 'VIDEO start end##sentence'"
    ) as caught:
        read_charades_sta(str(file), str(videos))
    assert line in str(caught.value)


# --------------------------------------------------------------------------------- files and folders


Reader = Callable[[str, str], Annotations]
both_readers = pytest.mark.parametrize("reader", [read_activitynet, read_charades_sta])


@both_readers
@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file_is_named(tmp_path: Path, videos: Path, reader: Reader, content: str) -> None:
    file = tmp_path / "empty.any"
    file.write_text(content)
    with pytest.raises(UserError, match=r"annotation file .*empty\.any is empty"):
        reader(str(file), str(videos))


@both_readers
def test_a_missing_file_is_named(tmp_path: Path, videos: Path, reader: Reader) -> None:
    with pytest.raises(UserError, match=r"annotation file .*missing\.any does not exist"):
        reader(str(tmp_path / "missing.any"), str(videos))


@both_readers
def test_a_binary_file_is_named(tmp_path: Path, videos: Path, reader: Reader) -> None:
    file = tmp_path / "binary.any"
    file.write_bytes(b"ab\xff\xfe")
    with pytest.raises(UserError, match=r"binary\.any: not a UTF-8 text file \(.* at byte 2\)"):
        reader(str(file), str(videos))


def test_a_missing_video_folder_is_named(tmp_path: Path) -> None:
    captions = write_json(tmp_path / "a.json", {"a": entry([1, 2])})
    lines = tmp_path / "a.txt"
    lines.write_text("a 1 2##b")
    for reader, file in ((read_activitynet, captions), (read_charades_sta, str(lines))):
        with pytest.raises(UserError, match=r"video folder .*nowhere does not exist"):
            reader(file, str(tmp_path / "nowhere"))


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    captions = write_json(tmp_path / "a.json", {"a": entry([3, 2]), "b": entry([1, 2])})
    with pytest.raises(UserError, match=r"dropped 2 \(missing video: 1, start not before end: 1\)"):
        read_activitynet(captions, str(videos))
    with pytest.raises(UserError, match="0 samples - nothing to work with"):
        read_activitynet(write_json(tmp_path / "none.json", {}), str(videos))
    lines = tmp_path / "a.txt"
    lines.write_text("a 1 2##its video is empty")
    with pytest.raises(UserError, match=r"dropped 1 \(unreadable video: 1\) - nothing to work with"):
        read_charades_sta(str(lines), str(videos))


def test_videos_are_found_with_and_without_their_extension(videos: Path) -> None:
    for name in ("a.webm", "a.mp4", "b.mkv", "c.txt"):
        (videos / name).touch()
    (videos / "d.mp4").mkdir()
    folder = VideoFolder(videos)
    assert folder.find("a") == str(videos / "a.mp4")  # the first extension of the list
    assert folder.find("a.webm") == str(videos / "a.webm")
    assert folder.find("b") == str(videos / "b.mkv")
    assert (folder.find("c"), folder.find("d"), folder.find("")) == (None, None, None)
    assert VideoFolder(videos, [".txt"]).find("c") == str(videos / "c.txt")


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("one\n\n  \nfour\n")
    assert read_lines(file) == [(1, "one"), (4, "four")]
    file.write_text("[1, 2]")
    assert read_json(file) == [1, 2]


def test_spans_of_a_video_of_unknown_length_may_end_anywhere() -> None:
    found = Annotations("some file")
    assert mend_interval(5, 500, None, found) == Interval(5, 500)
    assert mend_interval(-1, 3, None, found) == Interval(0, 3)
    assert mend_interval(-2, -1, None, found) is None
    assert (found.mended, found.dropped) == ({"clamped_to_the_video": 1}, {"outside_the_video": 1})


def test_times_written_as_text_are_compared_as_numbers(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    file = write_json(tmp_path / "a.json", {"a": entry(["1", "2"], ["9", "10"], [1, 2])})
    found = read_activitynet(file, str(videos))
    # Either all three are read or both texts are refused; "9" >= "10" must not make them differ.
    assert found.dropped["start_not_before_end"] == 0
    assert len(found.samples) in (1, 3)


# -------------------------------------------------------------------------------------- the real slices


@needs_real_annotations
@pytest.mark.parametrize(
    ("name", "samples", "clamped", "not_before"),
    [
        # Counted in the files by hand: charades LEOL6 (8.0 to 7.0) and IOL8Q (20.9 to 12.0) are reversed,
        # activitynet v_N7ppHQNikv8 (34.77 twice) and v_4rKTw99bM8g (4.97 twice) have no length.
        ("videochat_r1/charades_train.json", 134, 26, 2),
        ("videochat_r1/activitynet_train.json", 141, 10, 2),
        ("official/activitynet/train.json", 141, 10, 2),
    ],
)
def test_real_captions(videos: Path, name: str, samples: int, clamped: int, not_before: int) -> None:
    file = REAL / name
    durations = {video: content["duration"] for video, content in json.loads(file.read_text()).items()}
    for video in durations:
        (videos / f"{video}.mp4").touch()
    found = read_activitynet(str(file), str(videos))
    assert len(found.samples) == len({sample.id for sample in found.samples}) == samples
    assert found.mended == {"clamped_to_the_video": clamped}
    assert found.dropped == {"start_not_before_end": not_before}
    for sample in found.samples:
        assert sample.duration == durations[sample.id.rsplit("-", 1)[0]]
        assert 0 <= sample.target.start < sample.target.end <= sample.duration
        assert sample.query == sample.query.strip() != ""


@needs_real_annotations
def test_real_captions_keep_what_the_file_says(videos: Path) -> None:
    for video in ("v_N7ppHQNikv8", "v_pSdlIsd_vZc"):
        (videos / f"{video}.mp4").touch()
    found = read_activitynet(str(REAL / "official/activitynet/train.json"), str(videos))
    spans = kept(found)
    assert [id_ for id_ in spans if id_.startswith("v_N7")] == [f"v_N7ppHQNikv8-{i}" for i in (0, 1, 3)]
    assert spans["v_N7ppHQNikv8-1"] == (25.83, 34.77)
    assert spans["v_pSdlIsd_vZc-2"] == (24.32, 43.41)  # 43.42 in the file, of 43.41 s
    queries = {sample.id: sample.query for sample in found.samples}
    assert queries["v_N7ppHQNikv8-3"].startswith("Then a girls wearing a pink floral")  # " Then" in the file


@needs_real_annotations
def test_real_charades_lines(videos: Path, ten_seconds: Path, thirty_seconds: Path) -> None:
    file = REAL / "official/charades_sta/charades_sta_train.txt"
    names = sorted({line.split()[0] for line in file.read_text().splitlines()})
    # The first of the 60 videos is missing, the second is junk, 29 are given 10 s and 29 are given 30 s.
    (videos / f"{names[1]}.mp4").write_bytes(b"junk")
    for name in names[2:31]:
        os.link(ten_seconds, videos / f"{name}.mp4")
    for name in names[31:]:
        os.link(thirty_seconds, videos / f"{name}.mp4")
    found = read_charades_sta(str(file), str(videos))
    # Counted with awk: 136 rows, of which 70 lie inside these lengths and 33 reach over the end, 16 of them
    # by no more than 2 s or a tenth of the length.
    assert len(found.samples) == len({sample.id for sample in found.samples}) == 70 + 16
    assert found.mended == {"clamped_to_the_video": 16}
    assert found.dropped == {
        "missing_video": 3,
        "unreadable_video": 2,
        "start_not_before_end": 2,
        "outside_the_video": 26,
        "ends_far_behind_the_video": 17,
    }
    assert 70 + 16 + found.dropped.total() == 136
    assert {sample.duration for sample in found.samples} == {10.0, 30.0}
    spans = kept(found)
    assert spans["IOL8Q-1"] == (0.0, 10.0)  # 0.0 12.0 in the file; its row 0 is reversed
    assert spans["Y6R7T-0"] == (20.8, 30.0)


# --------------------------------------------------------------------------------- the synthetic world


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("worlds"))


def test_a_clip_of_the_synthetic_world_gives_two_samples(worlds: str) -> None:
    found = read_synthetic(worlds, "train", 3, seed=4)
    assert [sample.id for sample in found.samples] == [
        f"train-0000{i}-{j}" for i in range(3) for j in range(2)
    ]
    for number, sample in enumerate(found.samples):
        spec = sample.extra["spec"]
        event = spec.events[number % 2]
        assert Path(sample.video).is_file()
        assert sample.query == f"the {event.color} {event.shape} appears"
        assert sample.target == Interval(event.start, event.end)
        assert sample.duration == spec.duration
        assert sample.extra["rationale"] == event.color
    assert str(found) == "synthetic train: 6 samples"


def test_the_synthetic_world_is_the_same_again(worlds: str, tmp_path: Path) -> None:
    one = read_synthetic(worlds, "train", 3, seed=4, loosen=1.5)
    other = read_synthetic(str(tmp_path), "train", 3, seed=4, loosen=1.5)
    assert kept(one) == kept(other)
    assert [sample.query for sample in one.samples] == [sample.query for sample in other.samples]
    assert kept(one) != kept(read_synthetic(str(tmp_path), "train", 3, seed=5, loosen=1.5))


def test_annotations_are_concatenated_in_order_with_their_account() -> None:
    one = Annotations("one", [Sample("a", "v", "q", None)], dropped=Counter(missing_video=2))
    two = Annotations("two", [Sample("b", "v", "q", None)], dropped=Counter(missing_video=1, empty_query=1))
    both = concatenate([one, two, one])
    assert [sample.id for sample in both.samples] == ["a", "b", "a"]
    expected = "one + two + one: 3 samples; dropped 6 (empty query: 1, missing video: 5)"
    assert str(both) == expected


def test_half_seconds_only(worlds: str) -> None:
    with pytest.raises(UserError, match="half seconds"):
        read_synthetic(worlds, "train", 3, seed=4, loosen=0.3)
    with pytest.raises(UserError, match=r"loosen=-0\.5 cannot be done for grounding"):
        read_synthetic(worlds, "train", 3, seed=4, loosen=-0.5)


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "twice.json"
    file.write_text('{"a": 1, "b": 2, "a": 3}')
    with pytest.raises(UserError, match=r"twice\.json: the key 'a' stands 2 times"):
        read_json(file)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_no_decoder_takes_is_an_error_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"odd\.json: not usable JSON"):
        read_json(file)


def test_names_and_times_of_any_length_cost_one_row(tmp_path: Path, videos: Path) -> None:
    (videos / "a.mp4").touch()
    file = tmp_path / "long.json"
    rows = {"a": entry([1, 2]), "n" * 300: entry([1, 2])}
    file.write_text(json.dumps(rows).replace("[[1, 2]]", "[[1, 1" + "0" * 400 + "]]", 1))
    with pytest.raises(UserError, match=r"dropped 2 \(missing video: 1, not a span: 1\)"):
        read_activitynet(str(file), str(videos))


def test_loosening_moves_ends_outwards_only(worlds: str) -> None:
    exact = read_synthetic(worlds, "loose", 12, seed=0).samples
    loose = read_synthetic(worlds, "loose", 12, seed=0, loosen=2.0).samples
    moved = []
    for truth, other in zip(exact, loose, strict=True):
        assert (truth.id, truth.query, truth.extra) == (other.id, other.query, other.extra)
        earlier, later = truth.target.start - other.target.start, other.target.end - truth.target.end
        assert 0 <= earlier <= 2.0
        assert 0 <= later <= 2.0
        assert 0 <= other.target.start < other.target.end <= other.duration
        moved += [earlier, later]
    assert set(moved) == {0.0, 0.5, 1.0, 1.5, 2.0}  # steps of half a second, all of them drawn
    assert moved[0::2] != moved[1::2]  # the two ends of a span have draws of their own


def test_limit_of_the_synthetic_world(worlds: str) -> None:
    assert list(kept(read_synthetic(worlds, "train", 3, seed=4, limit=3))) == [
        "train-00000-0",
        "train-00000-1",
        "train-00001-0",
    ]
