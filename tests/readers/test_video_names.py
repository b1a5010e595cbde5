"""How a video's name in an annotation becomes a file."""

import json
import unicodedata
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.readers import Purpose, VideoFolder, read_jsonl, read_tracking_json, reading_for
from vcr1.tasks import GroundingTask

SLICES = Path(__file__).resolve().parents[2] / "../shared/slices"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of videos with a few names, and a file outside of it."""
    root = tmp_path / "videos"
    (root / "val" / "frames").mkdir(parents=True)
    for name in ("A.MP4", "clip_1.mp4", "val/deep.mkv", "odd.bin", "两人.mp4", "two words.webm"):
        (root / name).touch()
    (tmp_path / "outside.mp4").touch()
    (tmp_path / "secret.txt").touch()
    return root


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("A.MP4", "A.MP4"),
        ("A", "A.MP4"),
        ("a.mp4", "A.MP4"),
        ("clip_1", "clip_1.mp4"),
        ("videos/clip_1.mp4", "clip_1.mp4"),
        ("./dataset/videos/clip_1.mp4", "clip_1.mp4"),
        ("/mnt/cluster/data/val/deep", "val/deep.mkv"),
        ("C:\\data\\val\\deep.mkv", "val/deep.mkv"),
        ("deep.mkv", None),  # parts are taken away, never added
        ("odd.bin", "odd.bin"),  # a whole name is taken whatever its ending
        ("odd", None),
        ("两人", "两人.mp4"),
        ("videos/two words", "two words.webm"),
        ("../outside.mp4", None),
        ("../../clip_1.mp4", "clip_1.mp4"),  # what stands before .. does not count
        ("val", None),  # a folder is no file
        ("", None),
        ("..", None),
        ("\0", None),
        ("x" * 300, None),
        ("nowhere/gone.mp4", None),
    ],
)
def test_where_a_name_leads(folder: Path, name: str, found: str | None) -> None:
    assert VideoFolder(folder).find(name) == (None if found is None else str(folder / found))


def test_the_exact_name_goes_first_and_two_that_fit_are_none(folder: Path) -> None:
    (folder / "a.mp4").touch()
    assert VideoFolder(folder).find("a.mp4") == str(folder / "a.mp4")
    assert VideoFolder(folder).find("A") is None  # A.MP4 or a.mp4?
    (folder / "b.Mp4").touch()
    (folder / "B.mP4").touch()
    assert VideoFolder(folder).find("b") is None


def test_accents_may_be_written_in_either_way(folder: Path) -> None:
    (folder / unicodedata.normalize("NFD", "café.mp4")).touch()
    found = VideoFolder(folder).find(unicodedata.normalize("NFC", "café"))
    assert found == str(folder / unicodedata.normalize("NFD", "café.mp4"))


def test_outside_of_the_folder_an_absolute_path_to_a_video_leads_alone(folder: Path) -> None:
    outside = str(folder.parent / "outside.mp4")
    assert VideoFolder(folder).find(outside) == outside
    (folder / "outside.mp4").touch()
    assert VideoFolder(folder).find(outside) == str(folder / "outside.mp4")  # the folder goes first
    assert VideoFolder(folder).find(str(folder.parent / "secret.txt")) is None
    assert VideoFolder(folder).find(f"{folder}/../outside.mp4") == str(folder / "outside.mp4")
    with reading_for(Purpose.EVALUATION):  # a missing one gets a path in the folder, whatever it is called
        assert VideoFolder(folder).find("/etc/passwd") == str(folder / "etc/passwd")
        assert VideoFolder(folder).find("../../secret.txt") == str(folder / "secret.txt")


def test_two_names_that_would_be_one_file_are_refused(folder: Path) -> None:
    videos = VideoFolder(folder)
    assert videos.find("clip_1.mp4") == videos.find("videos/clip_1") == videos.find("my/videos/clip_1")
    with pytest.raises(
        UserError, match=r"'my/videos/clip_1' and 'test/clip_1' would both be .*another video"
    ):
        videos.find("test/clip_1")


def test_a_setting_of_the_reader_is_never_taken_away(folder: Path) -> None:
    assert VideoFolder(folder).below("val").find("deep") == str(folder / "val" / "deep.mkv")
    assert VideoFolder(folder).below("val").find("clip_1.mp4") is None


def test_an_error_names_the_places_that_were_tried(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"video": "data/clips/gone", "query": "it", "interval": [1, 2]}')
    places = ", ".join(str(folder / place) for place in ("data/clips/gone", "clips/gone", "gone"))
    with pytest.raises(UserError, match=rf"a-1: no video 'data/clips/gone'; tried {places}, with .* \.mp4"):
        read_jsonl(str(file), str(folder), GroundingTask())


def got10k(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / "val" / name).mkdir(parents=True)
        for frame in range(8):
            (folder / "val" / name / f"{frame:08}.jpg").touch()


def test_paths_of_another_machine_lead_to_folders_of_frames(tmp_path: Path) -> None:
    root = "/mnt/cluster/share/OpenDataLab___GOT-10k/raw/GOT-10k/val"
    rows = [
        {"path": f"{root}/GOT-10k_Val_{n:06}", "object": "bear", "gt": [[0, 0, 1, 1]] * 8} for n in (1, 2)
    ]
    (tmp_path / "got_val.json").write_text(json.dumps(rows))
    got10k(tmp_path, ["GOT-10k_Val_000001", "GOT-10k_Val_000002"])
    found = read_tracking_json(str(tmp_path / "got_val.json"), str(tmp_path))
    assert [sample.source.path for sample in found.samples] == [
        str(tmp_path / "val" / f"GOT-10k_Val_{n:06}") for n in (1, 2)
    ]
    assert found.dropped == {}


@pytest.mark.skipif(not SLICES.is_dir(), reason="the real annotations are not the project's to ship")
def test_got10k_as_videochat_r1_published_it(tmp_path: Path) -> None:
    rows = json.loads((SLICES / "got_val_as_published.json").read_text())
    got10k(tmp_path, [Path(row["path"]).name for row in rows])
    found = read_tracking_json(str(SLICES / "got_val_as_published.json"), str(tmp_path))
    assert (len(found.samples), found.dropped) == (6, {})
    with reading_for(Purpose.EVALUATION):
        kept = read_tracking_json(str(SLICES / "got_val_as_published.json"), str(tmp_path))
    for sample, row in zip(kept.samples, rows, strict=True):
        assert [[box.x0, box.y0, box.x1, box.y1] for box in sample.target] == row["gt"]
