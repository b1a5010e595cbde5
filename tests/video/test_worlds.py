"""The worlds of moving shapes and of bad cameras."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.video import (
    COLORS,
    DEGRADATIONS,
    DIRECTIONS,
    WORLDS,
    ClipSpec,
    FrameBudget,
    PatchGrid,
    ShapeEvent,
    build_world,
    direction_of,
    draw_long,
    draw_motion,
    draw_quality,
    draw_spec,
    read_clip,
    render,
)
from vcr1.video.synthetic import WORLD_SIZE

seeds = st.integers(0, 2**32)


# ------------------------------------------------------------------------------------------------ motion


@given(seed=seeds)
def test_a_moving_shape_is_always_seen_and_stays_in_the_frame(seed: int) -> None:
    spec = draw_motion(random.Random(seed))
    (event,) = spec.events
    assert (spec.duration, event.start, event.end, spec.degradation) == (8.0, 0.0, 8.0, "clean")
    assert 15 <= event.radius <= 21
    for time in (0.0, 3.75, 7.75, 8.0):
        box = event.box(time)
        assert 0 < box[0] < box[2] < 1
        assert 0 < box[1] < box[3] < 1
        # It meets no wall: it is where a straight line leads.
        x, y = ((box[0] + box[2]) / 2 * WORLD_SIZE, (box[1] + box[3]) / 2 * WORLD_SIZE)
        assert (x, y) == pytest.approx((event.x + event.vx * time, event.y + event.vy * time))


@given(seed=seeds)
def test_a_moving_shape_goes_one_way_and_hardly_sideways(seed: int) -> None:
    (event,) = draw_motion(random.Random(seed)).events
    way = DIRECTIONS[direction_of(event)]
    forward = 8 * (event.vx * way[0] + event.vy * way[1])
    sideways = 8 * (event.vx * way[1] + event.vy * way[0])
    assert 28 - 1e-9 <= forward <= 56 + 1e-9
    assert abs(sideways) <= 10 + 1e-9


def test_all_directions_colours_and_shapes_are_drawn() -> None:
    events = [draw_motion(random.Random(seed)).events[0] for seed in range(200)]
    assert {direction_of(event) for event in events} == set(DIRECTIONS)
    assert {event.color for event in events} == set(COLORS)
    assert len({event.shape for event in events}) == 3


@pytest.mark.parametrize(
    ("vx", "vy", "way"),
    [
        (3, 0, "right"),
        (-3, 1, "left"),
        (1, 3, "down"),  # y counts downwards
        (0, -0.1, "up"),
        (-2, -1.9, "left"),
        (-1.9, -2, "up"),
    ],
)
def test_direction_is_that_of_the_larger_speed(vx: float, vy: float, way: str) -> None:
    assert direction_of(ShapeEvent("red", "square", 0, 8, x=56, y=56, vx=vx, vy=vy, radius=15)) == way


def test_a_moving_shape_is_drawn_where_its_box_is() -> None:
    # From (40, 56) by 4 pixels a second to the right: at 2 s the centre is at (48, 56).
    event = ShapeEvent("blue", "square", 0, 8, x=40, y=56, vx=4, vy=0, radius=16)
    video = render(ClipSpec(8.0, (30, 30, 30), 0, (event,)))
    rows, columns = np.nonzero((video[8] == COLORS["blue"]).all(-1))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (32, 64, 40, 72)
    assert event.box(2.0) == pytest.approx((32 / 112, 40 / 112, 64 / 112, 72 / 112))


# ----------------------------------------------------------------------------------------------- quality


def spec_seen(degradation: str, noise_seed: int = 5) -> ClipSpec:
    """Two seconds of a red square of 41 x 41 pixels around (40, 60)."""
    event = ShapeEvent("red", "square", 0.0, 2.0, x=40, y=60, vx=0, vy=0, radius=20)
    return ClipSpec(2.0, (40, 50, 60), noise_seed, (event,), degradation)


def test_a_bad_camera_sees_the_same_events() -> None:
    found = set()
    for seed in range(40):
        spec = draw_quality(random.Random(seed))
        assert replace(spec, degradation="clean") == draw_spec(random.Random(seed))
        found.add(spec.degradation)
    assert found == set(DEGRADATIONS)


def test_noise_changes_cells_of_each_frame_alike_in_all_colours() -> None:
    clean, noisy = (render(spec_seen(name)).astype(int) for name in ("clean", "noisy"))
    # Where neither the clean value nor the sum can be clipped, the change is the grain itself.
    change = noisy - clean
    free = (clean >= 0) & (noisy > 0) & (noisy < 255)
    assert abs(change).max() <= 70
    assert abs(change[free]).mean() > 20  # uniform in -70..70 has a mean size of 35
    # 16 x 16 cells of 7 x 7 pixels: within one, wherever nothing was clipped, the change is one number.
    cell, unclipped = change[:, :7, :7], free[:, :7, :7]
    for frame in range(len(cell)):
        assert len(set(cell[frame][unclipped[frame]])) == 1
    # New ones in each frame.
    assert len({change[frame][free[frame]].tobytes() for frame in range(len(change))}) == len(change)


def test_blur_is_the_mean_over_a_quarter_of_the_frame() -> None:
    clean, blurred = (render(spec_seen(name)).astype(float) for name in ("clean", "blurred"))
    assert blurred.shape == clean.shape
    # The window is 28 pixels wide; well inside the frame it reaches as far to both sides, give or take one.
    row, column = 60, 70
    windows = [
        clean[0, row - 14 + shift : row + 14 + shift, column - 14 + shift : column + 14 + shift].mean((0, 1))
        for shift in (0, 1)
    ]
    low, high = np.minimum(*windows) - 0.51, np.maximum(*windows) + 0.51
    assert (low <= blurred[0, row, column]).all()
    assert (blurred[0, row, column] <= high).all()
    # A step from one pixel to the next becomes a ramp: 190 in 28 pixels, about 7 a pixel.
    assert abs(np.diff(clean[0, 60, :, 0])).max() > 150
    assert abs(np.diff(blurred[0, :, :, 0], axis=1)).max() <= 10
    # Nothing gets lighter or darker than it was, and what is alike stays so.
    assert blurred.min() >= clean.min()
    assert blurred.max() <= clean.max()


def test_an_even_picture_stays_even_when_blurred() -> None:
    event = ShapeEvent("green", "square", 0, 1, x=56, y=56, vx=0, vy=0, radius=54)
    video = render(ClipSpec(1.0, (30, 30, 30), 0, (event,), "blurred"))
    assert (abs(video[0, 40:72, 40:72].astype(int) - COLORS["green"]) <= 1).all()


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_pixels_follow_from_the_spec_alone(degradation: str) -> None:
    spec = spec_seen(degradation)
    assert np.array_equal(render(spec), render(spec))
    assert not np.array_equal(render(spec), render(spec_seen(degradation, noise_seed=6)))


def test_degradations_differ_and_an_unknown_one_is_named() -> None:
    videos = [render(spec_seen(name)) for name in DEGRADATIONS]
    assert all(video.dtype == np.uint8 for video in videos)
    assert len({video.tobytes() for video in videos}) == 3
    with pytest.raises(ValueError, match="unknown degradation 'foggy'; there are clean, noisy, blurred"):
        render(spec_seen("foggy"))


@settings(max_examples=20)
@given(seed=seeds)
def test_a_degradation_survives_json(seed: int) -> None:
    spec = draw_quality(random.Random(seed))
    values = json.loads(json.dumps(spec.to_json()))
    assert ClipSpec.from_json(values) == spec
    del values["degradation"]  # as worlds were written before there were any
    assert ClipSpec.from_json(values) == replace(spec, degradation="clean")


# ------------------------------------------------------------------------------------------------ worlds


@given(seed=seeds)
def test_a_long_clip_shows_four_short_events(seed: int) -> None:
    spec = draw_long(random.Random(seed))
    assert spec.duration in (60.0, 70.0, 80.0)
    assert len({event.color for event in spec.events}) == len(spec.events) == 4
    assert all(3 <= event.end - event.start <= 5 for event in spec.events)
    assert all(event.start >= 0 and event.end <= spec.duration - 0.5 for event in spec.events)


def test_a_part_of_a_clip_shows_the_same_frames() -> None:
    spec = draw_long(random.Random(5))
    start = spec.events[0].start - 1.0
    part = spec.part(start, start + 6.0)
    assert part.duration == 6.0
    assert part.events[0].start == 1.0
    first = round(start * 4)  # four frames a second
    assert np.array_equal(render(part), render(spec)[first : first + 24])


def test_every_kind_of_world_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for kind, draw in WORLDS.items():
        clips = build_world(tmp_path, "train", 2, seed=1, kind=kind)
        assert [spec for _, spec in clips] == [draw(random.Random(f"train-1-{i}")) for i in range(2)]
        assert build_world(tmp_path, "train", 2, seed=1, kind=kind) == clips
    names = sorted(folder.name for folder in tmp_path.iterdir())
    assert names == ["long-train-2-1-v1", "motion-train-2-1-v1", "quality-train-2-1-v1", "train-2-1-v1"]


def test_a_file_shows_what_the_camera_saw(tmp_path: Path) -> None:
    for path, spec in build_world(tmp_path, "train", 4, seed=1, kind="quality"):
        clip = read_clip(path, FrameBudget(), PatchGrid())
        assert clip.duration == spec.duration
        expected = render(spec)[list(clip.indices)].transpose(0, 3, 1, 2).astype(int)
        # H.264 loses a little, and 4:2:0 colours bleed at edges: in the mean there is next to no change.
        assert abs(clip.frames.numpy().astype(int) - expected).mean() < 8
