import json
import multiprocessing
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.video import FrameBudget, PatchGrid, read_clip
from vcr1.video.synthetic import (
    COLORS,
    SHAPES,
    ClipSpec,
    ShapeEvent,
    render,
    write_clip,
)
from vcr1.video.worlds import build_world, draw_spec

SQUARE = ShapeEvent("red", "square", start=1.0, end=2.5, x=40, y=60, vx=0, vy=0, radius=20)
CLIP = ClipSpec(duration=4.0, background=(30, 30, 30), noise_seed=0, events=(SQUARE,))

seeds = st.integers(0, 2**32)


@given(seed=seeds)
def test_drawn_clips_keep_their_bounds(seed: int) -> None:
    spec = draw_spec(random.Random(seed))
    assert spec.duration in (6, 8, 10)
    assert len({event.color for event in spec.events}) == 2
    for event in spec.events:
        assert event.color in COLORS
        assert event.shape in SHAPES
        assert (event.start * 2).is_integer()
        assert (event.end * 2).is_integer()
        assert 1.0 <= event.end - event.start <= 3.0
        assert 0.0 <= event.start < event.end <= spec.duration - 0.5 < 10.0


@given(seed=seeds, time=st.floats(0, 100))
def test_shapes_stay_inside_the_picture(seed: int, time: float) -> None:
    for event in draw_spec(random.Random(seed)).events:
        x0, y0, x1, y1 = event.box(time)
        assert 0 < x0 < x1 < 1
        assert 0 < y0 < y1 < 1
        assert x1 - x0 == pytest.approx(2 * event.radius / 112)


def test_a_shape_bounces_off_the_wall() -> None:
    # The centre moves between 21 and 91: from 81 it reaches the wall after 1 s and is back after 2 s.
    event = ShapeEvent("red", "square", 0, 9, x=81, y=56, vx=10, vy=0, radius=20)
    centers = [float(x) for x in event.center(np.array([0.0, 1.0, 2.0, 9.0]))[0]]
    assert centers == [81, 91, 81, 31]  # after 9 s it has come 80 back from 91, past 21 by 10
    assert event.box(1.0) == pytest.approx((71 / 112, 36 / 112, 111 / 112, 76 / 112))


@given(seed=seeds)
def test_a_spec_survives_json(seed: int) -> None:
    spec = draw_spec(random.Random(seed))
    assert ClipSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="as many colours"):
        draw_spec(random.Random(0), num_events=5)
    with pytest.raises(ValueError, match="do not fit into 3 s"):
        draw_spec(random.Random(0), durations=(3,))


def test_a_shape_is_seen_from_its_start_to_its_end() -> None:
    video = render(CLIP)
    assert video.shape == (16, 112, 112, 3)
    seen = [bool((frame == COLORS["red"]).all(-1).any()) for frame in video]
    assert [i / 4 for i in range(16) if seen[i]] == [1.0, 1.25, 1.5, 1.75, 2.0, 2.25]


def test_a_shape_is_seen_where_its_box_is() -> None:
    rows, columns = np.nonzero((render(CLIP)[4] == COLORS["red"]).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 80, 20, 60)
    assert SQUARE.box(1.0) == pytest.approx((20 / 112, 40 / 112, 60 / 112, 80 / 112))


@pytest.mark.parametrize(("shape", "pixels"), [("square", 41 * 41), ("circle", 1257), ("triangle", 841)])
def test_shapes_have_their_areas(shape: str, pixels: int) -> None:
    # Radius 20: the circle holds 1257 lattice points (Gauss); rows d = 0..40 of the triangle hold
    # 2 * floor(d / 2) + 1 each: 41 + 2 * (2 * (0 + ... + 19) + 20) = 841.
    event = ShapeEvent("blue", shape, 0, 1, x=56, y=56, vx=0, vy=0, radius=20)
    frame = render(ClipSpec(1.0, (30, 30, 30), 0, (event,)))[0]
    assert int((frame == COLORS["blue"]).all(-1).sum()) == pixels


def test_an_unknown_shape_is_named() -> None:
    event = ShapeEvent("blue", "star", 0, 1, x=56, y=56, vx=0, vy=0, radius=20)
    with pytest.raises(ValueError, match="'star'"):
        render(ClipSpec(1.0, (30, 30, 30), 0, (event,)))


def test_clips_may_be_rendered_smaller_and_faster() -> None:
    video = render(CLIP, size=56, fps=8)
    assert video.shape == (32, 56, 56, 3)
    rows, columns = np.nonzero((video[8] == COLORS["red"]).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 40, 10, 30)


def test_pixels_follow_from_the_spec_alone() -> None:
    spec = draw_spec(random.Random(7))
    assert np.array_equal(render(spec), render(draw_spec(random.Random(7))))
    assert not np.array_equal(render(spec)[0], render(draw_spec(random.Random(8)))[0])


def test_a_written_clip_shows_the_shape_at_its_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(CLIP, path)
    clip = read_clip(path, FrameBudget(), PatchGrid())
    assert (clip.duration, clip.source_fps) == (4.0, 4.0)
    center = clip.frames[:, :, 60, 40].tolist()  # 112x112 is kept, and the square's centre is at (40, 60)
    for time, color in zip(clip.timestamps, center, strict=True):
        expected = COLORS["red"] if 1.0 <= time < 2.5 else (30, 30, 30)
        assert color == pytest.approx(expected, abs=16)


# ------------------------------------------------------------------------------------------------ worlds


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its time of change and its content."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in snapshot(folder).items()}


def test_a_world_is_built_once(tmp_path: Path) -> None:
    clips = build_world(tmp_path, "train", 3, seed=1)
    world = tmp_path / "train-3-1-v1"
    assert [path for path, _ in clips] == [world / f"0000{i}.mp4" for i in range(3)]
    assert list(tmp_path.iterdir()) == [world]
    before = snapshot(tmp_path)
    assert build_world(tmp_path, "train", 3, seed=1) == clips
    assert snapshot(tmp_path) == before


def test_a_world_follows_from_split_and_seed(tmp_path: Path) -> None:
    first = build_world(tmp_path / "a", "train", 3, seed=1)
    build_world(tmp_path / "b", "train", 3, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    specs = [spec for _, spec in first]
    assert [spec for _, spec in build_world(tmp_path, "train", 2, seed=1)] == specs[:2]
    assert [spec for _, spec in build_world(tmp_path, "test", 3, seed=1)] != specs
    assert [spec for _, spec in build_world(tmp_path, "train", 3, seed=2)] != specs


def test_an_interrupted_build_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_at_the_third(spec: ClipSpec, path: Path) -> None:
        if path.name == "00002.mp4":
            raise KeyboardInterrupt
        write_clip(spec, path)

    with monkeypatch.context() as patch:
        patch.setattr("vcr1.video.worlds.write_clip", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            build_world(tmp_path, "train", 3, seed=1)
    assert list(tmp_path.iterdir()) == []
    assert all(path.is_file() for path, _ in build_world(tmp_path, "train", 3, seed=1))


@pytest.mark.parametrize("lost", ["specs.json", "00001.mp4"])
def test_a_world_with_a_file_missing_is_built_again(tmp_path: Path, lost: str) -> None:
    clips = build_world(tmp_path, "train", 3, seed=1)
    before = contents(tmp_path)
    (tmp_path / "train-3-1-v1" / lost).unlink()
    assert build_world(tmp_path, "train", 3, seed=1) == clips
    assert contents(tmp_path) == before


def test_half_a_marker_is_no_marker(tmp_path: Path) -> None:
    build_world(tmp_path, "train", 2, seed=1)
    before = contents(tmp_path)
    marker = tmp_path / "train-2-1-v1" / "specs.json"
    marker.write_text(marker.read_text()[:100])
    build_world(tmp_path, "train", 2, seed=1)
    assert contents(tmp_path) == before


def build_and_tell(folder: Path, answers: "multiprocessing.SimpleQueue[list[bool]]") -> None:
    answers.put([path.is_file() for path, _ in build_world(folder, "train", 12, seed=1)])


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    builders = [context.Process(target=build_and_tell, args=(tmp_path, answers)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(timeout=60)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert [answers.get(), answers.get()] == [[True] * 12] * 2
    assert [folder.name for folder in tmp_path.iterdir()] == ["train-12-1-v1"]


def test_the_second_to_finish_drops_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def let_another_finish_first(spec: ClipSpec, path: Path) -> None:
        monkeypatch.setattr("vcr1.video.worlds.write_clip", write_clip)
        build_world(tmp_path, "train", 2, seed=1)
        first.update(snapshot(tmp_path / "train-2-1-v1"))
        write_clip(spec, path)

    first: dict[str, tuple[int, bytes]] = {}
    monkeypatch.setattr("vcr1.video.worlds.write_clip", let_another_finish_first)
    build_world(tmp_path, "train", 2, seed=1)
    assert snapshot(tmp_path) == {f"train-2-1-v1/{name}": file for name, file in first.items()}
