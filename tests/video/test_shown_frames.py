"""Clips of exactly so many frames, the first and the last of the source among them."""

from pathlib import Path

import pytest
import torch
from video_files import stripes

from vcr1.errors import UserError
from vcr1.policy import load_encoder
from vcr1.records import Prompt, VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, write_mp4

TINY, GRID = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28), PatchGrid()


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames at 10 fps."""
    path = tmp_path_factory.mktemp("clips") / "hundred.mp4"
    write_mp4(path, stripes(100), fps=10)
    return path


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_the_first_and_the_last_frame_are_shown(hundred: Path, decoder: str) -> None:
    clip = read_clip(hundred, TINY, GRID, decoder=decoder, frames=8)
    assert clip.indices == (0, 14, 28, 42, 57, 71, 85, 99)
    assert clip.timestamps == pytest.approx([0.0, 1.4, 2.8, 4.2, 5.7, 7.1, 8.5, 9.9])
    assert clip.frames.shape == (8, 3, 28, 28)
    quarter = clip.frames[:, :, 14:, 14:].float().mean((1, 2, 3)).tolist()
    assert quarter == pytest.approx([20 + 2 * index for index in clip.indices], abs=3)


def test_the_clock_is_that_of_the_frames(hundred: Path) -> None:
    clip = read_clip(hundred, TINY, GRID, frames=8)
    # 9.9 s from the first to the last are 7 gaps of 99/70 s; 8 frames stand for 8 of them, 113.14 frames.
    assert clip.duration == pytest.approx(8 * 99 / 70)
    assert clip.total_frames == pytest.approx(8 * 99 / 7)
    assert clip.fps == pytest.approx(70 / 99)
    assert clip.source_fps == pytest.approx(10.0)
    assert clip.seconds_per_grid(2) == pytest.approx(2 * 99 / 70)


def test_the_clock_of_a_part_counts_from_its_first_frame(hundred: Path) -> None:
    clip = read_clip(VideoSource(str(hundred), 2.05, 5.0), TINY, GRID, frames=4)
    assert clip.indices == (20, 30, 39, 49)  # of frames 20 to 49: 0, 9.67, 19.33 and 29 on
    assert clip.timestamps == pytest.approx([0.0, 0.95, 1.85, 2.85])
    assert clip.fps == pytest.approx(3 / 2.9)  # frames 20 and 49 begin 2.9 s apart
    assert clip.source_fps == pytest.approx(10.0)


def test_a_variable_frame_rate_has_its_mean(tmp_path: Path) -> None:
    path = tmp_path / "variable.mp4"
    write_mp4(path, stripes(8), fps=5, times=[0.0, 0.1, 0.2, 1.0, 1.5, 1.6, 1.7, 1.8])
    clip = read_clip(path, TINY, GRID, frames=4)
    assert clip.indices == (0, 2, 5, 7)  # 7 i / 3: 2.33, 4.67
    assert clip.timestamps == pytest.approx([0.0, 0.2, 1.6, 1.8])
    assert clip.fps == pytest.approx(3 / 1.8)
    assert clip.source_fps == pytest.approx(7 / 1.8)


def test_too_few_frames_are_repeated(tmp_path: Path) -> None:
    path = tmp_path / "three.mp4"
    write_mp4(path, stripes(3), fps=4)
    clip = read_clip(path, TINY, GRID, frames=4)
    assert clip.indices == (0, 1, 1, 2)  # 0.67 and 1.33
    assert clip.fps == pytest.approx(3 / 0.5)
    assert torch.equal(clip.frames[1], clip.frames[2])


def test_a_single_frame_lasts_as_long_as_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "one.mp4"
    write_mp4(path, stripes(1), fps=4)
    clip = read_clip(path, TINY, GRID, frames=4)
    assert (clip.indices, clip.timestamps) == ((0,) * 4, (0.0,) * 4)
    assert (clip.duration, clip.fps, clip.source_fps) == (0.25, 16.0, 4.0)
    one = read_clip(path, TINY, PatchGrid(temporal=1), frames=1)
    assert (one.indices, one.duration) == ((0,), 0.25)


@pytest.mark.parametrize("frames", [3, 7])
def test_frames_fill_whole_patches(hundred: Path, frames: int) -> None:
    with pytest.raises(UserError, match=rf"^tasks\.<task>\.boxes must be a multiple of 2, .*; got {frames}$"):
        read_clip(hundred, TINY, GRID, frames=frames)
    with pytest.raises(ValueError, match="at least one frame"):
        read_clip(hundred, TINY, GRID, frames=0)


@pytest.mark.parametrize("frames", [2, 8, 40])
@pytest.mark.parametrize(("start", "end"), [(0.0, None), (2.05, 5.0), (9.95, None)])
def test_the_model_is_told_the_true_clock(
    hundred: Path, frames: int, start: float, end: float | None
) -> None:
    # The encoder itself refuses a clip whose clock the processor does not give back.
    encoder = load_encoder("builtin:tiny")
    clip = read_clip(VideoSource(str(hundred), start, end), TINY, encoder.grid, frames=frames)
    inputs = encoder(Prompt("Where?"), clip)
    assert inputs["video_grid_thw"].tolist() == [[frames // 2, 2, 2]]
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([clip.seconds_per_grid(2)])
