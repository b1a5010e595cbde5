from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from video_files import stripes

from vcr1.errors import VideoError
from vcr1.records import VideoSource
from vcr1.video import FrameBudget, PatchGrid, read_clip, video_duration, write_mp4
from vcr1.video.parts import cut

BUDGET, GRID = FrameBudget(), PatchGrid()
TENTHS = [frame / 10 for frame in range(40)]


def test_without_borders_all_of_it_is_taken() -> None:
    part = cut(VideoSource("v.mp4"), TENTHS, 4.0)
    assert (part.first, part.duration, part.total_frames) == (0, 4.0, 40)
    assert part.times == part.timestamps == tuple(TENTHS)


@pytest.mark.parametrize(
    ("start", "end", "first", "count", "frames"),
    [
        (1.0, 3.0, 10, 20, 20),  # frame 30 begins at the end: it is not shown
        (0.95, 2.05, 9, 12, 11),  # half of frame 9, frames 10 to 19, half of frame 20
        (1.02, 1.07, 10, 1, 0.5),  # half of one frame
        (3.9, None, 39, 1, 1),
        (3.0, 99.0, 30, 10, 10),  # the file ends at 4 s
        (1.1, 1.2, 11, 1, 1),
    ],
)
def test_the_frames_on_screen_belong_to_the_part(
    start: float, end: float | None, first: int, count: int, frames: float
) -> None:
    part = cut(VideoSource("v.mp4", start, end), TENTHS, 4.0)
    assert (part.first, len(part.times)) == (first, count)
    assert part.total_frames == pytest.approx(frames)
    assert part.duration == pytest.approx(min(end or 4.0, 4.0) - start)
    assert part.timestamps[0] == 0.0
    assert part.times == pytest.approx([time - start for time in TENTHS[first : first + count]])


@given(
    gaps=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=30),
    start=st.floats(0, 0.98),
    length=st.floats(0.01, 1.5),
)
def test_a_frame_is_in_the_part_if_it_is_seen_there(gaps: list[float], start: float, length: float) -> None:
    starts = [sum(gaps[:frame]) for frame in range(len(gaps))]
    ends = [*starts[1:], sum(gaps)]
    begin, stop = start * ends[-1], (start + length) * ends[-1]
    part = cut(VideoSource("v.mp4", begin, stop), starts, ends[-1])
    seen = [max(min(last, stop) - max(at, begin), 0.0) for at, last in zip(starts, ends, strict=True)]
    members = range(part.first, part.first + len(part.times))
    for frame, seconds in enumerate(seen):
        assert frame in members or seconds < 3e-6
        assert frame not in members or seconds > 0 or len(members) == 1
    shares = sum(seconds / (last - at) for seconds, at, last in zip(seen, starts, ends, strict=True))
    assert part.total_frames == pytest.approx(shares, abs=1e-3)
    assert part.duration == pytest.approx(sum(seen))


@pytest.mark.parametrize(("start", "end"), [(4.0, None), (4.0, 6.0), (3.9999999, None), (70.0, 80.0)])
def test_a_part_beyond_the_end_is_named(clip: Path, start: float, end: float | None) -> None:
    source = VideoSource(str(clip), start, end)
    for read in (video_duration, lambda it: read_clip(it, BUDGET, GRID)):
        with pytest.raises(
            VideoError, match=r"lies beyond the end of the video, which lasts 4\.000 s"
        ) as caught:
            read(source)
        assert str(caught.value).startswith(f"{clip}: the part from ")


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_part_shows_the_same_frames_as_the_file(clip: Path, decoder: str) -> None:
    whole = read_clip(clip, FrameBudget(fps=10), GRID, decoder=decoder)
    part = read_clip(VideoSource(str(clip), 1.0, 3.0), BUDGET, GRID, decoder=decoder)
    assert part.indices == (10, 15, 20, 25)
    assert part.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert (part.duration, part.total_frames, part.source_fps, part.fps) == (2.0, 20, 10.0, 2.0)
    assert whole.indices == tuple(range(40))
    assert torch.equal(part.frames, whole.frames[list(part.indices)])
    assert video_duration(VideoSource(str(clip), 1.0, 3.0)) == 2.0
    assert video_duration(VideoSource(str(clip), 3.5)) == 0.5


def test_a_part_may_begin_between_two_frames(clip: Path) -> None:
    part = read_clip(VideoSource(str(clip), 0.95, 2.95), BUDGET, GRID)
    # Openings 0.95, 1.45, 1.95 and 2.45 s show the frames from 0.9, 1.4, 1.9 and 2.4 s on.
    assert part.indices == (9, 14, 19, 24)
    assert part.timestamps == pytest.approx([0.0, 0.45, 0.95, 1.45])  # the first is there from the beginning
    assert (part.duration, part.source_fps) == (pytest.approx(2.0), pytest.approx(10.0))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_part_of_a_variable_frame_rate_has_its_real_times(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "variable.mp4"
    write_mp4(path, stripes(8), fps=5, times=[0.0, 0.1, 0.2, 1.0, 1.5, 1.6, 1.7, 1.8])
    part = read_clip(VideoSource(str(path), 0.6, 1.65), FrameBudget(fps=4), GRID, decoder=decoder)
    # Frame 2 is on screen from 0.2 to 1 s; openings 0.6, 0.8625, 1.125 and 1.3875 s.
    assert part.indices == (2, 2, 3, 3)
    assert part.timestamps == pytest.approx([0.0, 0.0, 0.4, 0.4])
    assert part.duration == pytest.approx(1.05)
    assert part.total_frames == pytest.approx(3.0)  # half of frame 2, frames 3 and 4, half of frame 5


def test_a_path_and_a_source_are_the_same(clip: Path) -> None:
    clips = [read_clip(source, BUDGET, GRID) for source in (clip, str(clip), VideoSource(str(clip)))]
    assert clips[0].without_frames().indices == clips[2].indices
    assert all(torch.equal(one.frames, clips[0].frames) for one in clips)
    assert {one.duration for one in clips} == {4.0}
    assert video_duration(str(clip)) == video_duration(VideoSource(str(clip))) == 4.0
