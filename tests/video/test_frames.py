import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import stripes

from vcr1.errors import VideoError
from vcr1.records import VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, video_duration
from vcr1.video.frames import frames_timeline, list_frames

BUDGET, GRID = FrameBudget(), PatchGrid()


def write_frames(folder: Path, frames: np.ndarray, pattern: str = "{:08d}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(frames, 1):
        Image.fromarray(pixels).save(folder / pattern.format(number))
    return folder


def test_a_folder_is_read_as_a_video_of_its_frames(clip: Path, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", stripes(40))
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    result = read_clip(VideoSource(str(folder), fps=10), BUDGET, GRID)
    video = read_clip(clip, BUDGET, GRID)
    assert result.indices == video.indices == (0, 5, 10, 15, 20, 25, 30, 35)
    assert result.timestamps == pytest.approx(video.timestamps)
    assert (result.duration, result.total_frames, result.source_fps) == (4.0, 40, 10.0)
    assert result.frames.shape == video.frames.shape
    assert result.frames.dtype == torch.uint8
    assert (result.frames.int() - video.frames.int()).abs().float().mean() < 3  # H.264 loses a little
    assert video_duration(VideoSource(str(folder), fps=10)) == 4.0


def test_start_and_end_cut_a_folder(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", stripes(40))
    part = read_clip(VideoSource(str(folder), start=1.0, end=3.0, fps=10), BUDGET, GRID)
    assert part.indices == (10, 15, 20, 25)
    whole = read_clip(VideoSource(str(folder), fps=10), BUDGET, GRID)
    assert part.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert part.frames[0, 0, 60, 100] == whole.frames[2, 0, 60, 100] == 70  # 20 + 5 * 10
    with pytest.raises(VideoError, match=r"beyond the end of the video, which lasts 4\.000 s"):
        read_clip(VideoSource(str(folder), start=5.0, fps=10), BUDGET, GRID)


def test_only_the_wanted_pictures_are_opened(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", stripes(40))
    for number in (2, 3, 40):
        (folder / f"{number:08d}.png").write_bytes(b"")
    assert read_clip(VideoSource(str(folder), fps=10), BUDGET, GRID).frames.shape == (8, 3, 84, 168)


def test_pictures_stand_in_natural_order(tmp_path: Path) -> None:
    names = [
        "img_10.jpg",
        "img_2.jpg",
        "img_1.JPEG",
        "._img_1.jpg",
        "img_03.webp",
        "notes.txt",
        "b2.png",
        "b.png",
    ]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_frames(tmp_path) == [
        "b.png",
        "b2.png",
        "img_1.JPEG",
        "img_2.jpg",
        "img_03.webp",
        "img_10.jpg",
    ]


def test_numbers_of_any_length_are_sorted(tmp_path: Path) -> None:
    names = ["9" * 240 + ".png", "1.png", "01.png", "٣.png", ".png", "a.png"]
    for name in names:
        (tmp_path / name).touch()
    assert list_frames(tmp_path) == ["01.png", "1.png", "9" * 240 + ".png", "a.png", "٣.png"]


@pytest.mark.parametrize("fps", [29.97, 10, 0.1, 1e-7, 1000.0])
def test_every_picture_lasts_equally_long(fps: float) -> None:
    timeline = frames_timeline(30, fps)
    assert timeline.duration == pytest.approx(30 / fps)
    assert timeline.timestamps == pytest.approx([frame / fps for frame in range(30)])


@pytest.mark.parametrize(("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "webp")])
def test_any_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    grey = Image.fromarray(np.full((112, 112, 3), 120, np.uint8))
    (grey.quantize() if mode == "P" else grey.convert(mode)).save(tmp_path / f"1.{suffix}")
    result = read_clip(VideoSource(str(tmp_path), fps=1), BUDGET, GRID)
    assert result.frames.shape == (2, 3, 112, 112)
    assert (result.frames.int() - 120).abs().max() <= 4


def test_pictures_of_another_size_are_fitted_to_the_first(tmp_path: Path) -> None:
    write_frames(tmp_path, stripes(2, 112, 112))
    Image.fromarray(stripes(1, 60, 60)[0]).save(tmp_path / "00000002.png")
    assert read_clip(VideoSource(str(tmp_path), fps=1), BUDGET, GRID).frames.shape == (2, 3, 112, 112)


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, stripes(2, 112, 112))
    Image.fromarray(stripes(1, 60, 200)[0]).save(tmp_path / "00000002.png")
    with pytest.raises(VideoError, match="changes from 112x112 to 200x60, another shape"):
        read_clip(VideoSource(str(tmp_path), fps=1), BUDGET, GRID)


def bomb() -> bytes:
    """The head of a PNG of 60,000 x 60,000 pixels."""
    picture = bytearray(Image.new("RGB", (1, 1))._repr_png_() or b"")
    picture[16:24] = (60_000).to_bytes(4, "big") * 2
    picture[29:33] = zlib.crc32(picture[12:29]).to_bytes(4, "big")
    return bytes(picture)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not a readable picture"),
        (b"the download failed: please log in\n" * 40, "not a readable picture"),
        (bytes(4096), "not a readable picture"),
        (bomb(), "pixels"),
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes, cause: str) -> None:
    write_frames(tmp_path, stripes(4))
    (tmp_path / "00000003.png").write_bytes(content)
    with pytest.raises(VideoError, match=cause) as caught:
        read_clip(VideoSource(str(tmp_path), fps=4), BUDGET, GRID)
    assert str(caught.value).startswith(f"{tmp_path / '00000003.png'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_a_picture_cut_short_is_no_picture(tmp_path: Path, suffix: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    path = tmp_path / f"1.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * part)])
    with pytest.raises(VideoError, match="not a readable picture") as caught:
        read_clip(VideoSource(str(tmp_path), fps=1), BUDGET, GRID)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_picture_of_depth_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((112, 112), 4000, np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(VideoError, match="I;16; convert the picture to 8 bits RGB"):
        read_clip(VideoSource(str(tmp_path), fps=1), BUDGET, GRID)


def test_a_folder_needs_pictures_and_a_frame_rate(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no frames")
    cases = {
        VideoSource(str(tmp_path)): r"not a file; .* frames per second \(fps\) of a folder",
        VideoSource(str(tmp_path), fps=10): r"holds no \.jpg, \.jpeg, \.png, \.webp; unpack its frames",
        VideoSource(str(clip), fps=10): "no folder of frames; leave fps out",
        VideoSource(str(tmp_path / "none"), fps=10): "no such folder; check data.root",
        VideoSource(str(tmp_path / ("x" * 300)), fps=10): "cannot be opened",
    }
    for source, message in cases.items():
        for read in (video_duration, lambda it: read_clip(it, BUDGET, GRID)):
            with pytest.raises(VideoError, match=message) as caught:
                read(source)
            assert str(caught.value).startswith(f"{source.path}: ")
