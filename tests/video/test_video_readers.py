import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from video_files import stripes, write_stream, write_streams

from vcr1.errors import UserError
from vcr1.video import FrameBudget, PatchGrid, read_clip, read_timeline, video_duration, write_mp4

BUDGET, GRID = FrameBudget(), PatchGrid()
TINY = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28 * 24)
REAL = Path(__file__).parents[3] / "shared" / "videos"

needs_real_videos = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real clips are not the project's to ship"
)


def brightness(frames: torch.Tensor) -> list[float]:
    """Mean of each frame's lower right quarter, where its number shows."""
    height, width = frames.shape[-2:]
    return frames[:, :, height // 2 :, width // 2 :].float().mean((1, 2, 3)).tolist()


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_the_wanted_frames_are_read(clip: Path, decoder: str) -> None:
    result = read_clip(clip, BUDGET, GRID, decoder=decoder)
    assert result.indices == (0, 5, 10, 15, 20, 25, 30, 35)
    assert result.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
    assert (result.duration, result.total_frames) == (4.0, 40)
    assert (result.source_fps, result.fps, result.seconds_per_grid(2)) == (10.0, 2.0, 1.0)
    assert result.frames.dtype == torch.uint8
    assert result.frames.shape == (8, 3, 84, 168)  # 96x160 is nearest to 3 x 6 tiles
    assert brightness(result.frames) == pytest.approx([20 + 5 * i for i in result.indices], abs=3)


def test_both_decoders_give_the_same_clip(clip: Path) -> None:
    one, other = (read_clip(clip, BUDGET, GRID, decoder=name) for name in ("decord", "pyav"))
    assert (one.indices, one.timestamps, one.duration) == (other.indices, other.timestamps, other.duration)
    assert (one.frames.int() - other.frames.int()).abs().max() <= 2


def test_channels_are_red_green_blue(clip: Path) -> None:
    for decoder in ("decord", "pyav"):
        corner = read_clip(clip, BUDGET, GRID, decoder=decoder).frames[0, :, 8, 8]
        assert corner.tolist() == pytest.approx([250, 30, 30], abs=12)


def test_many_frames_are_decoded_in_chunks(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_clip(clip, FrameBudget(fps=10), GRID, decoder="decord")
    monkeypatch.setattr("vcr1.video.decord_reading._CHUNK_BYTES", 3 * 96 * 160 * 7)
    chunked = read_clip(clip, FrameBudget(fps=10), GRID, decoder="decord")
    assert len(whole.indices) == 40
    assert torch.equal(whole.frames, chunked.frames)


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_what_decord_cannot_read_is_read_with_pyav(av1: Path, decoder: str) -> None:
    result = read_clip(av1, BUDGET, GRID, decoder=decoder)
    assert result.indices == (0, 5, 10, 15, 20, 25, 30, 35)
    assert brightness(result.frames) == pytest.approx([20 + 5 * i for i in result.indices], abs=6)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_variable_frame_rate_has_its_real_times(tmp_path: Path, decoder: str) -> None:
    times = [0.0, 0.1, 0.2, 1.0, 1.5, 1.6, 1.7, 1.8]
    path = tmp_path / "variable.mp4"
    write_mp4(path, stripes(8), fps=5, times=times)
    assert read_timeline(path).timestamps == pytest.approx(times)
    result = read_clip(path, BUDGET, GRID, decoder=decoder)
    assert result.duration == pytest.approx(2.0)  # the last frame lasts 1/5 s
    assert result.indices == (0, 2, 3, 4)
    assert result.timestamps == pytest.approx([0.0, 0.2, 1.0, 1.5])
    assert brightness(result.frames) == pytest.approx([20, 70, 95, 120], abs=3)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    write_stream(path, stripes(8), start=24, rate=4)
    result = read_clip(path, BUDGET, GRID)
    assert result.timestamps == (0.0, 0.5, 1.0, 1.5)
    assert result.duration == 2.0


def test_a_single_frame_is_shown_twice(tmp_path: Path) -> None:
    path = tmp_path / "one.mp4"
    write_mp4(path, stripes(1), fps=4)
    for decoder in ("decord", "pyav"):
        result = read_clip(path, BUDGET, GRID, decoder=decoder)
        assert (result.indices, result.timestamps, result.duration) == ((0, 0), (0.0, 0.0), 0.25)
        assert torch.equal(result.frames[0], result.frames[1])


def test_the_main_one_of_two_streams_is_read(tmp_path: Path) -> None:
    path = tmp_path / "preview.mp4"
    write_streams(path, [stripes(8, 32, 32), stripes(24, 96, 160)], rates=[4, 12])
    for decoder in ("decord", "pyav"):  # decord's FFmpeg does not heed the flag: PyAV steps in
        result = read_clip(path, TINY, GRID, decoder=decoder)
        assert result.total_frames == 24
        assert brightness(result.frames) == pytest.approx([20 + 8 * i for i in result.indices], abs=3)


def test_streams_of_equal_length_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "preview.mp4"
    write_streams(path, [stripes(8, 96, 160), stripes(8, 32, 32)], rates=[4, 4])
    for decoder in ("decord", "pyav"):
        assert read_clip(path, BUDGET, GRID, decoder=decoder).frames.shape == (4, 3, 112, 112)


def test_an_edit_list_trims_the_video(tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    write_stream(path, stripes(40), rate=10)
    content = bytearray(path.read_bytes())
    # elst: version, count, then length in ms, first time shown in ticks (10240 a second), rate.
    entry = content.index(b"elst") + 12
    length, first, rate = struct.unpack(">IiI", content[entry : entry + 12])
    assert (length, rate) == (4000, 1 << 16)
    content[entry : entry + 12] = struct.pack(">IiI", 2000, first + 10240, rate)  # show seconds 1 to 3
    path.write_bytes(content)
    result = read_clip(path, BUDGET, GRID)  # decord would read from second 0
    assert (result.duration, result.total_frames) == (2.0, 20)
    assert result.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert brightness(result.frames) == pytest.approx([70, 95, 120, 145], abs=3)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))])
def test_a_turned_video_is_set_upright_by_both(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    path = tmp_path / "turned.mp4"
    write_stream(path, stripes(8), rate=4, rotation=degrees)
    clips = [read_clip(path, BUDGET, GRID, decoder=name) for name in ("decord", "pyav")]
    assert torch.equal(clips[0].frames, clips[1].frames)
    height, width = clips[0].frames.shape[-2:]
    assert (height > width) == (degrees != 180)
    y, x = (8 if side == 0 else -8 for side in corner)  # where the lit corner has gone
    assert clips[0].frames[0, :, y, x].tolist() == pytest.approx([250, 30, 30], abs=12)


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "clip.webm", "clip.ts"])
def test_other_containers_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec = {"clip.avi": "mpeg4", "clip.webm": "libvpx-vp9"}.get(name, "libx264")
    write_stream(path, stripes(24), rate=6, codec=codec)
    for decoder in ("auto", "pyav"):
        result = read_clip(path, BUDGET, GRID, decoder=decoder)
        assert result.duration == pytest.approx(4.0, abs=0.002)  # Matroska counts in milliseconds
        assert len(result.indices) == 8
        assert result.timestamps == pytest.approx([index / 6 for index in result.indices], abs=0.002)
        assert brightness(result.frames) == pytest.approx([20 + 8 * i for i in result.indices], abs=5)


def test_duration_is_that_of_the_clip(clip: Path) -> None:
    assert video_duration(clip) == read_clip(clip, TINY, GRID).duration == 4.0


def test_sound_that_outlasts_the_pictures_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    write_streams(path, [stripes(8)], rates=[4], seconds_of_sound=5)
    assert video_duration(path) == 2.0
    assert read_clip(path, TINY, GRID).duration == 2.0


def test_an_unknown_decoder_is_named(clip: Path) -> None:
    with pytest.raises(UserError, match="auto, pyav, decord, got 'opencv'"):
        read_clip(clip, BUDGET, GRID, decoder="opencv")


def test_without_decord_pyav_reads(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(read_clip(clip, TINY, GRID).indices) == 8
    with pytest.raises(UserError, match="decord is not installed"):
        read_clip(clip, TINY, GRID, decoder="decord")


def test_decord_may_be_loaded_before_or_after_pyav(clip: Path) -> None:
    code = (
        "import decord; from vcr1.video import *; read_clip({0!r}, FrameBudget(), PatchGrid()); print('read')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(clip))], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("read\n", 0), done.stderr


# --------------------------------------------------------------------------------------------- real clips


@needs_real_videos
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize(
    ("name", "frames", "fps", "duration", "count", "size"),
    [
        ("nasa_13013.mp4", 390, 29.97, 13.013, 26, (280, 476)),
        ("clip2.mp4", 86, 21.5, 4.0, 8, (616, 1092)),
    ],
)
def test_real_clips(
    name: str, frames: int, fps: float, duration: float, count: int, size: tuple[int, int], decoder: str
) -> None:
    clip = read_clip(REAL / name, BUDGET, GRID, decoder=decoder)
    assert (clip.total_frames, len(clip.indices)) == (frames, count)
    assert clip.source_fps == pytest.approx(fps, abs=1e-3)
    assert clip.duration == pytest.approx(duration, abs=1e-3)
    assert clip.frames.shape == (count, 3, *size)
    for i, (index, time) in enumerate(zip(clip.indices, clip.timestamps, strict=True)):
        assert time == pytest.approx(index / fps, abs=1e-3)
        # The frame on screen began at most one frame before the opening of its cell.
        assert -1e-6 <= i * duration / count - time < 1 / fps


@needs_real_videos
def test_the_decoders_agree_on_a_real_clip() -> None:
    one, other = (
        read_clip(REAL / "nasa_13013.mp4", BUDGET, GRID, decoder=name) for name in ("decord", "pyav")
    )
    assert (one.frames.int() - other.frames.int()).abs().max() <= 2
