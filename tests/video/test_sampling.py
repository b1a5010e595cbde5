import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

from vcr1.errors import UserError, VideoError
from vcr1.video.sampling import (
    FrameBudget,
    PatchGrid,
    count_frames,
    evenly_spaced,
    frame_size,
    sample_indices,
    sample_times,
)

BUDGET, GRID = FrameBudget(), PatchGrid()


@pytest.mark.parametrize(
    ("duration", "total_frames", "expected"),
    [
        (13.013, 390, 26),  # 390 frames at 29.97 fps: 26.026
        (4.0, 86, 8),
        (3.4, 85, 6),  # 6.8, in pairs
        (1.0, 30, 4),  # 2, but at least 4
        (1.0, 3, 2),  # at least 4, but there are 3
        (0.04, 1, 2),  # less than one temporal patch: the frame is shown twice
        (1000.0, 30_000, 768),  # 2000, but at most 768
        (10.0, 11, 10),  # 20, but there are 11
        (3.999, 24, 8),  # 7.998: a time in whole milliseconds costs no pair
        (3.99, 24, 6),  # 7.98
    ],
)
def test_count_of_frames(duration: float, total_frames: int, expected: int) -> None:
    assert count_frames(duration, total_frames, BUDGET, GRID) == expected


def test_bounds_are_whole_patches() -> None:
    budget = FrameBudget(min_frames=5, max_frames=11)
    grid = PatchGrid(temporal=3)
    assert count_frames(1.0, 30, budget, grid) == 6
    assert count_frames(60.0, 1800, budget, grid) == 9


@given(
    duration=st.floats(0.01, 1e5),
    total_frames=st.integers(1, 10**6),
    fps=st.floats(0.1, 60),
    temporal=st.integers(1, 4),
)
def test_count_keeps_its_bounds(duration: float, total_frames: int, fps: float, temporal: int) -> None:
    budget = FrameBudget(fps=fps)
    count = count_frames(duration, total_frames, budget, PatchGrid(temporal=temporal))
    assert count % temporal == 0
    assert temporal <= count <= 768
    if total_frames >= 4 * temporal:
        assert 4 <= count <= total_frames
    else:
        assert count <= max(total_frames, temporal)


@pytest.mark.parametrize(("duration", "frames"), [(0.0, 4), (-1.0, 4), (math.nan, 4), (1.0, 0)])
def test_a_source_without_length_or_frames_is_refused(duration: float, frames: int) -> None:
    with pytest.raises(ValueError, match="a clip"):
        count_frames(duration, frames, BUDGET, GRID)


def test_times_are_the_openings_of_equal_cells() -> None:
    assert sample_times(6.0, 4) == [0.0, 1.5, 3.0, 4.5]


def test_indices_at_a_constant_frame_rate() -> None:
    timestamps = [frame / 21.5 for frame in range(86)]
    assert sample_indices(timestamps, 4.0, 8) == [0, 10, 21, 32, 43, 53, 64, 75]  # floor of 10.75 i


def test_indices_at_a_variable_frame_rate() -> None:
    # Openings 0, 0.5, 1 and 1.5 s. Equal steps in frame numbers would give 0, 1, 2, 3.
    assert sample_indices([0.0, 0.1, 0.2, 1.0, 1.5], 2.0, 4) == [0, 2, 3, 4]


def test_a_frame_that_stays_is_taken_again() -> None:
    assert sample_indices([0.0, 0.1, 5.0], 6.0, 4) == [0, 1, 1, 1]  # openings 0, 1.5, 3 and 4.5 s
    assert sample_indices([0.0], 0.5, 2) == [0, 0]


def test_times_count_from_the_first_frame() -> None:
    assert sample_indices([7.0, 7.5, 8.0, 8.5], 2.0, 2) == [0, 2]


@given(total=st.integers(1, 20_000), count=st.integers(1, 768), fps=st.floats(1.0, 120.0))
@example(total=390, count=26, fps=30_000 / 1001)
@example(total=108_000, count=768, fps=29.97)
def test_constant_frame_rate_gives_the_rule_of_transformers(total: int, count: int, fps: float) -> None:
    timestamps = [frame / fps for frame in range(total)]
    assert sample_indices(timestamps, total / fps, count) == [i * total // count for i in range(count)]


@given(
    gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=40),
    count=st.integers(1, 64),
    start=st.floats(-5, 5),
)
def test_the_frame_on_screen_is_taken(gaps: list[float], count: int, start: float) -> None:
    timestamps = [start + sum(gaps[:frame]) for frame in range(len(gaps))]
    indices = sample_indices(timestamps, sum(gaps), count)
    assert indices == sorted(indices)
    for index, time in zip(indices, sample_times(sum(gaps), count), strict=True):
        tolerance = 2e-6 * sum(gaps) / count
        assert timestamps[index] <= start + time + tolerance
        assert index + 1 == len(gaps) or timestamps[index + 1] > start + time - tolerance


def test_no_frame_is_not_a_sample() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        sample_indices([0.0], 1.0, 0)


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (100, 8, [0, 14, 28, 42, 57, 71, 85, 99]),  # 99 i / 7: 14.14, 28.29, 42.43, 56.57, 70.71, 84.86
        (6, 3, [0, 3, 5]),  # 2.5 is rounded up
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, 8, [0, 0, 1, 1, 1, 1, 2, 2]),  # 2 i / 7: 0.29, 0.57, 0.86, 1.14, 1.43, 1.71
        (1, 4, [0, 0, 0, 0]),
        (5, 2, [0, 4]),
        (5, 1, [0]),
    ],
)
def test_frames_are_evenly_spaced_by_number(total: int, count: int, expected: list[int]) -> None:
    assert evenly_spaced(total, count) == expected


@given(total=st.integers(1, 10**9), count=st.integers(2, 768))
def test_evenly_spaced_frames_are_the_nearest(total: int, count: int) -> None:
    numbers = evenly_spaced(total, count)
    assert (len(numbers), numbers[0], numbers[-1]) == (count, 0, total - 1)
    for place, number in enumerate(numbers):  # at most half a frame off, in whole numbers
        assert -(count - 1) <= 2 * (place * (total - 1) - number * (count - 1)) < count - 1
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("total", "count"), [(0, 4), (4, 0), (4, -2)])
def test_nothing_cannot_be_spaced(total: int, count: int) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        evenly_spaced(total, count)


@pytest.mark.parametrize(
    ("height", "width", "count", "expected"),
    [
        (270, 480, 26, (280, 476)),  # cap 3584 * 784 * 2 / 26 = 216,142; 10 x 17 tiles are 133,280
        (720, 1280, 8, (616, 1092)),  # cap 702,464; 26 x 46 tiles are too many, shrunk by 1.145
        (112, 112, 12, (112, 112)),  # just min_pixels
        (56, 56, 12, (112, 112)),  # enlarged to min_pixels
        (10, 300, 4, (28, 616)),  # 0 x 11 tiles: enlarged by 2.045 to 20 x 613, rounded up
        (1080, 1920, 768, (84, 140)),  # cap 7,317 lies below min_pixels: 1.05 * 12,544 = 13,171 holds
    ],
)
def test_size_of_frames(height: int, width: int, count: int, expected: tuple[int, int]) -> None:
    assert frame_size(height, width, count, BUDGET, GRID) == expected


@given(
    height=st.integers(8, 3000),
    width=st.integers(8, 3000),
    count=st.integers(1, 384).map(lambda pairs: 2 * pairs),
    min_tiles=st.integers(1, 256),
    total_tiles=st.integers(256, 20_000),
)
def test_size_is_that_of_smart_resize(
    height: int, width: int, count: int, min_tiles: int, total_tiles: int
) -> None:
    budget = FrameBudget(min_pixels=min_tiles * 784, total_pixels=total_tiles * 784)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(VideoError):
            frame_size(height, width, count, budget, GRID)
        return
    cap = max(budget.total_pixels * 2 / count, int(budget.min_pixels * 1.05))
    size = frame_size(height, width, count, budget, GRID)
    assert size == smart_resize(height, width, 28, budget.min_pixels, cap)
    assert size[0] % 28 == size[1] % 28 == 0
    assert min(size) >= 28


@given(height=st.integers(100, 2000), width=st.integers(100, 2000), count=st.integers(2, 384))
def test_a_clip_keeps_within_its_pixels(height: int, width: int, count: int) -> None:
    rows, columns = frame_size(height, width, count, FrameBudget(min_pixels=784), GRID)
    assert rows * columns * count <= max(3584 * 784 * 2, 784 * count * 20)


@pytest.mark.parametrize(("height", "width"), [(10, 2000), (2000, 10)])
def test_a_frame_may_be_200_times_as_long_as_wide(height: int, width: int) -> None:
    assert min(frame_size(height, width, 4, BUDGET, GRID)) == GRID.spatial


@pytest.mark.parametrize(("height", "width"), [(10, 2001), (2001, 10), (0, 10)])
def test_a_frame_that_is_no_picture_is_refused(height: int, width: int) -> None:
    with pytest.raises(VideoError, match=f"{width}x{height}"):
        frame_size(height, width, 4, BUDGET, GRID)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"fps": 0.0}, "fps"),
        ({"fps": math.inf}, "fps"),
        ({"min_frames": 0}, "min_frames"),
        ({"min_frames": 8, "max_frames": 6}, "max_frames"),
        ({"min_pixels": 0}, "min_pixels"),
        ({"min_pixels": 784, "total_pixels": 783}, "total_pixels"),
    ],
)
def test_a_budget_names_the_field_at_fault(values: dict[str, float], field: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.video\.{field} must be"):
        FrameBudget(**values)  # type: ignore[arg-type]


def test_a_patch_without_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PatchGrid(temporal=0)
