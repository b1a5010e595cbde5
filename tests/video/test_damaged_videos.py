from pathlib import Path

import numpy as np
import pytest
from video_files import stripes, write_stream, write_streams

from vcr1.errors import VideoError
from vcr1.video import FrameBudget, PatchGrid, read_clip, video_duration, write_mp4

BUDGET, GRID = FrameBudget(), PatchGrid()


def bad_files(folder: Path, good: bytes) -> dict[str, Path]:
    """Every kind of bad file, by kind. ``good`` is an MP4 whose index lies at its end."""
    data = good.index(b"mdat")
    contents = {
        "empty": b"",
        "text": b"the download failed: please log in\n" * 40,
        "no index": good[: len(good) // 2],
        "noise": np.random.default_rng(0).bytes(4096),
        "zeroed pictures": good[: data + 4]
        + bytes(good.index(b"moov") - data - 8)
        + good[good.index(b"moov") - 4 :],
    }
    files = {kind: folder / f"{kind}.mp4" for kind in contents}
    for kind, path in files.items():
        path.write_bytes(contents[kind])
    (folder / "folder.mp4").mkdir()
    files |= {
        "missing": folder / "missing.mp4",
        "folder": folder / "folder.mp4",
        "sound": folder / "sound.mp4",
    }
    write_streams(files["sound"], [], rates=[], seconds_of_sound=1)
    return files


CAUSES = {
    "empty": "is empty",
    "text": "not a readable video",
    "no index": "cut short",
    "noise": "not a readable video",
    "zeroed pictures": "fetch it again",
    "missing": "no such file",
    "folder": "not a file",
    "sound": "no video stream",
}


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
@pytest.mark.parametrize("kind", CAUSES)
def test_a_bad_file_is_named_with_its_cause(clip: Path, tmp_path: Path, kind: str, decoder: str) -> None:
    path = bad_files(tmp_path, clip.read_bytes())[kind]
    with pytest.raises(VideoError, match=CAUSES[kind]) as caught:
        read_clip(path, BUDGET, GRID, decoder=decoder)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_a_file_cut_short_is_not_a_shorter_video(tmp_path: Path, part: float, decoder: str) -> None:
    whole = tmp_path / "whole.mp4"
    write_stream(whole, stripes(40), rate=10, faststart=True)
    path = tmp_path / "cut.mp4"
    content = whole.read_bytes()
    data = content.index(b"mdat")
    path.write_bytes(content[: data + round((len(content) - data) * part)])
    with pytest.raises(VideoError, match="cut short") as caught:
        read_clip(path, BUDGET, GRID, decoder=decoder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_pictures_that_cannot_be_decoded_are_an_error(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "damaged.mp4"
    write_stream(path, stripes(40), rate=10)
    content = bytearray(path.read_bytes())
    first, last = content.index(b"mdat"), content.index(b"moov")
    start, end = first + (last - first) // 2, first + (last - first) * 3 // 4
    content[start:end] = np.random.default_rng(0).bytes(end - start)
    path.write_bytes(content)
    with pytest.raises(VideoError, match="fetch it again") as caught:
        read_clip(path, BUDGET, GRID, decoder=decoder)
    assert str(path) in str(caught.value)


def test_a_name_that_cannot_be_a_file_is_named(tmp_path: Path) -> None:
    for name in ("x" * 300 + ".mp4", "zero\0byte.mp4"):
        with pytest.raises(VideoError, match="mp4: "):
            video_duration(tmp_path / name)


def test_a_strip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "strip.mp4"
    write_mp4(path, np.zeros((4, 2, 402, 3), np.uint8), fps=4)
    with pytest.raises(VideoError, match="402x2 pixels") as caught:
        read_clip(path, BUDGET, GRID)
    assert str(caught.value).startswith(f"{path}: ")
