"""Frames that carry their own number, in 60 kinds of files: the picture shown is that of the stated time."""

import random
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from numbered import COUNT, KINDS, numbers, rate_of, write_numbered

from vcr1.errors import VideoError
from vcr1.records import VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, read_timeline

GRID = PatchGrid()
FILES = {
    "h264": "mp4 mov mkv avi ts flv wmv 3gp m2ts nut",
    "h264 open": "mp4 mkv avi ts flv",
    "h264 no b": "mp4 mkv avi flv",
    "h264 refresh": "mp4 mkv ts",
    "hevc": "mp4 mkv ts",
    "hevc open": "mp4 mkv ts flv",
    "mpeg4": "mp4 avi",
    "mpeg4 b": "mp4 mkv avi ts wmv",
    "mpeg2 b": "ts mpg mkv mxf",
    "mpeg2 closed": "mpg",
    "mpeg1 b": "mpg",
    "vp8": "webm avi ogv",
    "vp9": "webm mp4",
    "vp9 alt": "webm ivf",
    "av1": "mp4 webm",
    "wmv2": "wmv avi",
    "msmpeg4": "avi",
    "flv1": "flv",
    "mjpeg": "avi mov",
    "ffv1": "mkv",
    "prores": "mov",
    "gif": "gif",
}
COMBINATIONS = [(kind, ending) for kind, endings in FILES.items() for ending in endings.split()]

Make = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Write a kind of file at its first use."""
    folder = tmp_path_factory.mktemp("numbered")

    def make(kind: str, ending: str) -> Path:
        path = folder / f"{kind}.{ending}"
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SVT_LOG", "1")  # errors only
                write_numbered(path, kind)
        return path

    return make


def budget(fps: float) -> FrameBudget:
    """Frames of 56 x 56 and more."""
    return FrameBudget(fps=fps, min_frames=2, min_pixels=56 * 56, total_pixels=56 * 56 * COUNT)


def assert_numbers(source: VideoSource, fps: float, decoder: str, frames: int | None = None) -> None:
    """Read a clip; every frame carries the number of its index, and lies at that index's time."""
    clip = read_clip(source, budget(fps), GRID, decoder=decoder, frames=frames)
    times = read_timeline(source.path).timestamps
    assert numbers(clip.frames) == list(clip.indices)
    shown = [max(times[index] - source.start, 0.0) for index in clip.indices]
    assert list(clip.timestamps) == pytest.approx(shown)


def test_the_table_is_long_enough() -> None:
    assert set(FILES) == set(KINDS)
    assert len(COMBINATIONS) >= 60


@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc open"])
def test_a_program_stream_that_does_not_state_all_times_is_refused(made: Make, kind: str) -> None:
    with pytest.raises(VideoError, match="does not state the time of every frame; convert it"):
        read_timeline(made(kind, "mpg"))


@pytest.mark.parametrize(("kind", "ending"), COMBINATIONS)
def test_every_frame_is_that_of_its_time(made: Make, kind: str, ending: str) -> None:
    path, rate = made(kind, ending), rate_of(kind)
    timeline = read_timeline(path)
    assert timeline.timestamps == pytest.approx([number / rate for number in range(COUNT)], abs=0.002)
    assert timeline.duration == pytest.approx(COUNT / rate, abs=0.005)
    whole, seconds = VideoSource(str(path)), COUNT / rate
    assert_numbers(whole, rate, "pyav")
    assert_numbers(whole, 2.5 / seconds, "pyav")
    assert_numbers(whole, 7 / seconds, "pyav")
    assert_numbers(whole, 1, "pyav", frames=6)
    chance = random.Random(f"{kind}.{ending}")
    for fps in (rate, 3 / seconds, 0.5):
        start = chance.uniform(0.2, 0.9) * seconds
        assert_numbers(VideoSource(str(path), start, start + 0.3 * seconds), fps, "pyav")


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        *[("h264", ending) for ending in ("mp4", "mkv", "avi", "ts")],
        *[("h264 open", "mkv"), ("h264 refresh", "mp4"), ("hevc", "mp4"), ("hevc open", "mp4")],
        *[("mpeg4 b", "avi"), ("mpeg2 b", "mpg"), ("vp9", "webm"), ("gif", "gif")],
    ],
)
def test_decord_gives_the_same_frames_or_is_not_used(made: Make, kind: str, ending: str) -> None:
    path = made(kind, ending)
    seconds = COUNT / rate_of(kind)
    assert_numbers(VideoSource(str(path)), 6 / seconds, "decord")
    assert_numbers(VideoSource(str(path), 0.5 * seconds, 0.8 * seconds), rate_of(kind), "decord")


@pytest.mark.parametrize("kind", ["h264", "h264 open", "hevc", "hevc open", "mpeg2 b", "vp9"])
def test_a_late_part_does_not_need_the_frames_before(made: Make, tmp_path: Path, kind: str) -> None:
    content = bytearray(made(kind, "mkv").read_bytes())
    with av.open(str(made(kind, "mkv"))) as container:
        early = [packet for packet in container.demux(video=0) if packet.size and packet.dts is not None][
            3:15
        ]
    for packet in early:
        at = content.index(bytes(packet))
        content[at : at + packet.size] = bytes(packet.size)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(content)
    seconds = COUNT / rate_of(kind)
    assert_numbers(VideoSource(str(path), 0.8 * seconds, seconds), rate_of(kind), "pyav")
