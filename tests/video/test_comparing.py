"""Pictures against their times: what a second way of decoding finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import stripes, write_stream

from vcr1.records import VideoClip, VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, write_mp4
from vcr1.video.comparing import other_frames

BUDGET, GRID = FrameBudget(), PatchGrid()


def shifted(clip: VideoClip, by: int) -> VideoClip:
    """A clip whose pictures are those of other times, as of a decoder that seeks wrongly."""
    return replace(clip, frames=clip.frames.roll(by, 0))


@pytest.mark.parametrize("source", [(0.0, None), (1.0, None), (1.05, 3.05)])
def test_the_right_pictures_are_right_and_others_are_not(
    clip: Path, source: tuple[float, float | None]
) -> None:
    video = VideoSource(str(clip), *source)
    shown = read_clip(video, BUDGET, GRID)
    assert other_frames(video, shown, 3) is None
    found = other_frames(video, shifted(shown, -1), 3)
    assert found is not None
    # Frames are half a second apart, and each shows the next one's picture.
    begin, step = source[0], shown.timestamps[1] - shown.timestamps[0]
    assert (
        f"the picture at {begin:.2f} s is that of {int((begin + step) * 10) / 10:.2f} s by another" in found
    )


@pytest.mark.parametrize("name", ["late.mkv", "turned.mp4", "b_frames.avi"])
def test_odd_files_are_not_accused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    write_stream(
        path,
        stripes(24, 96, 96),
        8,
        codec,
        start=16 if name == "late.mkv" else 0,
        rotation=90 if name == "turned.mp4" else 0,
    )
    source = VideoSource(str(path))
    shown = read_clip(source, BUDGET, GRID, decoder="pyav")
    assert other_frames(source, shown, 3) is None
    assert other_frames(source, shifted(shown, 2), 3) is not None


def test_where_nothing_changes_nothing_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "still.mp4"
    write_mp4(path, np.full((16, 64, 64, 3), 99, np.uint8), 4)
    source = VideoSource(str(path))
    assert other_frames(source, shifted(read_clip(source, BUDGET, GRID), 1), 3) is None


def test_what_cannot_be_mistaken_is_not_compared(clip: Path, tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    folder = VideoSource(str(tmp_path), fps=2.0)
    assert other_frames(folder, shifted(read_clip(folder, BUDGET, GRID), 1), 3) is None
    video = VideoSource(str(clip))
    assert other_frames(video, shifted(read_clip(video, BUDGET, GRID), 1), 0) is None
