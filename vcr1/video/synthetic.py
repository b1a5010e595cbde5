"""The synthetic world: short clips of coloured shapes that come and go at known times.

It lets the package be tried, tested and demonstrated where no data set can be fetched: the files are real
MP4s, read by the same readers as any other.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from vcr1.video.writing import write_mp4

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 240),
    "yellow": (240, 220, 40),
}
SHAPES = ("square", "circle", "triangle")
WORLD_SIZE = 112
"""Side of the world in its own pixels; a clip may be rendered at another size."""
SOURCE_FPS = 4
WORLD_VERSION = "v1"
"""Part of a world's folder name: raise it when clips come out otherwise, and old caches are not reused."""

_TIME_STEP = 0.5
_NOISE = 8
"""Largest change of a background value, out of 255."""


@dataclass(frozen=True, slots=True)
class ShapeEvent:
    """One shape and its appearance, seen at ``start <= time < end``.

    Attributes:
        color: a key of ``COLORS``.
        shape: one of ``SHAPES``.
        start, end: seconds.
        x, y: centre at time 0, in pixels of the world, from the top left corner.
        vx, vy: speed in pixels per second; the shape bounces off the walls.
        radius: half of the square that the shape fills, in pixels.
    """

    color: str
    shape: str
    start: float
    end: float
    x: float
    y: float
    vx: float
    vy: float
    radius: float

    def center(self, time: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre ``(x, y)`` in pixels of the world, at times in seconds of any shape."""
        low, high = self.radius + 1, WORLD_SIZE - self.radius - 1
        return _bounce(self.x + self.vx * time, low, high), _bounce(self.y + self.vy * time, low, high)

    def box(self, time: float) -> tuple[float, float, float, float]:
        """Normalised corners ``(x0, y0, x1, y1)`` of the square around the shape at a time in seconds."""
        x, y = (float(value) for value in self.center(np.asarray(time)))
        sides = (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
        return tuple(side / WORLD_SIZE for side in sides)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """All that a synthetic clip is made from.

    Attributes:
        duration: seconds.
        background: RGB, each 0..255.
        noise_seed: seed of the background's noise.
        events: the shapes, later ones drawn over earlier ones.
    """

    duration: float
    background: tuple[int, int, int]
    noise_seed: int
    events: tuple[ShapeEvent, ...]

    def to_json(self) -> dict[str, Any]:
        """The clip as plain values."""
        return {**asdict(self), "background": list(self.background), "events": [*map(asdict, self.events)]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The clip that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: values that it did not write.
        """
        red, green, blue = values["background"]
        return cls(
            duration=values["duration"],
            background=(red, green, blue),
            noise_seed=values["noise_seed"],
            events=tuple(ShapeEvent(**event) for event in values["events"]),
        )


def draw_spec(
    rng: random.Random,
    durations: Sequence[float] = (6, 8, 10),
    num_events: int = 2,
    min_length: float = 1.0,
    max_length: float = 3.0,
) -> ClipSpec:
    """Draw a clip: ``num_events`` shapes of distinct colours, with times on a grid of half a second.

    Every shape is gone half a second before the clip ends, so that its end is seen, and with the default
    durations every time has one digit before the point.

    Args:
        rng: the only source of chance.
        durations: seconds, one of which is taken.
        num_events: shapes, at most as many as there are colours.
        min_length: fewest seconds that a shape is seen, in whole half seconds.
        max_length: most seconds that a shape is seen.

    Raises:
        ValueError: more shapes than colours, or a length that the shortest clip has no room for.
    """
    if num_events > len(COLORS):
        raise ValueError(f"{num_events} shapes need as many colours, there are {len(COLORS)}")
    if not _TIME_STEP <= min_length <= max_length <= min(durations) - _TIME_STEP:
        raise ValueError(f"shapes seen {min_length} to {max_length} s do not fit into {min(durations)} s")
    duration = rng.choice(durations)
    events = tuple(
        _draw_event(rng, color, duration, min_length, max_length)
        for color in rng.sample(list(COLORS), num_events)
    )
    background = (rng.randrange(20, 70), rng.randrange(20, 70), rng.randrange(20, 70))
    return ClipSpec(float(duration), background, rng.randrange(2**32), events)


def render(spec: ClipSpec, size: int = WORLD_SIZE, fps: float = SOURCE_FPS) -> NDArray[np.uint8]:
    """Draw a clip: ``[T, size, size, 3]`` uint8, RGB, with ``T = duration * fps``."""
    count = round(spec.duration * fps)
    # The grain stands still: moving grain makes a file four times as large and slower to write and read,
    # and next to nothing is left of either at the size that the demo's model sees.
    grain = np.random.default_rng(spec.noise_seed).integers(-_NOISE, _NOISE, (size, size, 3), endpoint=True)
    scene = np.clip(grain + np.asarray(spec.background), 0, 255).astype(np.uint8)
    video = np.broadcast_to(scene, (count, size, size, 3)).copy()
    times = np.arange(count) / fps
    for event in spec.events:
        seen = np.flatnonzero((times >= event.start) & (times < event.end))
        if seen.size:  # the frames lie in a row, so this slice is a view and the drawing lands in the video
            view = video[seen[0] : seen[-1] + 1]
            view[_mask(event, times[seen], size)] = COLORS[event.color]
    return video


def write_clip(spec: ClipSpec, path: str | Path) -> None:
    """Render a clip into an MP4 file, whole or not at all."""
    write_mp4(path, render(spec), SOURCE_FPS)


def build_world(folder: str | Path, split: str, count: int, seed: int) -> list[tuple[Path, ClipSpec]]:
    """``count`` clips of a split as files, made at the first call and found again at later ones.

    Clip i depends on split, seed and i alone, so a smaller world is the beginning of a larger one. The
    files lie in ``<folder>/<split>-<count>-<seed>-<version>``, which is built under another name and
    renamed when complete: an interrupted build leaves nothing that a later one trusts, and of two
    processes that build at once the second finds the first one's folder there and drops its own.

    Returns:
        ``(path, spec)`` per clip, in order.
    """
    world = Path(folder) / f"{split}-{count}-{seed}-{WORLD_VERSION}"
    if (specs := _load_specs(world, count)) is None:
        specs = [draw_spec(random.Random(f"{split}-{seed}-{index}")) for index in range(count)]
        _build(world, specs)
    return [(_clip_path(world, index), spec) for index, spec in enumerate(specs)]


def _build(world: Path, specs: Sequence[ClipSpec]) -> None:
    """Write the clips of a world into its folder; see :func:`build_world`."""
    partial = world.with_name(f".{world.name}.{os.getpid()}-{uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        for index, spec in enumerate(specs):
            write_clip(spec, _clip_path(partial, index))
        _marker(partial).write_text(json.dumps([spec.to_json() for spec in specs]), encoding="utf-8")
        _publish(partial, world, len(specs))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, world: Path, count: int) -> None:
    """Give a complete folder its name, unless a complete one has it already.

    Raises:
        OSError: the folder cannot be renamed.
    """
    if world.exists() and _load_specs(world, count) is None:
        # Someone deleted files of it. It is moved aside first, so that nobody meets it half deleted.
        spoilt = partial.with_suffix(".spoilt")
        world.rename(spoilt)
        shutil.rmtree(spoilt, ignore_errors=True)
    try:
        partial.rename(world)
    except OSError:
        if _load_specs(world, count) is None:
            raise


def _load_specs(world: Path, count: int) -> list[ClipSpec] | None:
    """The specs of a complete world, or None where it is missing or spoilt."""
    try:
        specs = [ClipSpec.from_json(v) for v in json.loads(_marker(world).read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = len(specs) == count and all(_clip_path(world, index).is_file() for index in range(count))
    return specs if complete else None


def _marker(world: Path) -> Path:
    """The file that is written last."""
    return world / "specs.json"


def _clip_path(world: Path, index: int) -> Path:
    return world / f"{index:05d}.mp4"


def _draw_event(
    rng: random.Random, color: str, duration: float, min_length: float, max_length: float
) -> ShapeEvent:
    """One shape of a clip; see :func:`draw_spec`."""
    length = rng.randrange(round(min_length / _TIME_STEP), round(max_length / _TIME_STEP) + 1) * _TIME_STEP
    latest = math.floor((duration - _TIME_STEP - length) / _TIME_STEP)
    start = rng.randrange(latest + 1) * _TIME_STEP
    angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(4, 14)
    return ShapeEvent(
        color=color,
        shape=rng.choice(SHAPES),
        start=start,
        end=start + length,
        x=rng.uniform(30, 82),
        y=rng.uniform(30, 82),
        vx=speed * math.cos(angle),
        vy=speed * math.sin(angle),
        radius=rng.uniform(17, 24),
    )


def _bounce(position: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """A straight path folded back and forth between two walls."""
    width = high - low
    phase = (position - low) % (2 * width)
    return low + np.minimum(phase, 2 * width - phase)


def _mask(event: ShapeEvent, times: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """``[K, size, size]``, True where the shape lies at each of K times in seconds."""
    pixels = np.arange(size) * (WORLD_SIZE / size)
    x, y = event.center(times)
    dx = pixels[None, None, :] - x[:, None, None]
    dy = pixels[None, :, None] - y[:, None, None]
    if event.shape == "square":
        return (abs(dx) <= event.radius) & (abs(dy) <= event.radius)
    if event.shape == "circle":
        return dx**2 + dy**2 <= event.radius**2
    if event.shape == "triangle":  # point up: as wide at the bottom as the square, nothing at the top
        return (abs(dy) <= event.radius) & (abs(dx) <= (dy + event.radius) / 2)
    raise ValueError(f"unknown shape {event.shape!r}; there are {', '.join(SHAPES)}")
