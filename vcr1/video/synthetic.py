"""The synthetic world: short clips of coloured shapes that come and go at known times.

It lets the package be tried, tested and demonstrated where no data set can be fetched: the files are real
MP4s, read by the same readers as any other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

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
DEGRADATIONS = ("clean", "noisy", "blurred")
"""What a clip may suffer from; ``clean`` is nothing."""

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
        """Return centre ``(x, y)`` in pixels of the world, at times in seconds of any shape."""
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
        degradation: one of ``DEGRADATIONS``.
    """

    duration: float
    background: tuple[int, int, int]
    noise_seed: int
    events: tuple[ShapeEvent, ...]
    degradation: str = "clean"

    def part(self, start: float, end: float) -> Self:
        """Return what is seen from ``start`` to ``end``, in seconds; its times count from ``start``."""
        events = tuple(
            replace(
                event,
                start=event.start - start,
                end=event.end - start,
                x=event.x + event.vx * start,
                y=event.y + event.vy * start,
            )
            for event in self.events
        )
        return replace(self, duration=end - start, events=events)

    def to_json(self) -> dict[str, Any]:
        """Return the clip as plain values."""
        return {**asdict(self), "background": list(self.background), "events": [*map(asdict, self.events)]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the clip that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: values that it did not write.
        """
        red, green, blue = values["background"]
        return cls(
            duration=values["duration"],
            background=(red, green, blue),
            noise_seed=values["noise_seed"],
            events=tuple(ShapeEvent(**event) for event in values["events"]),
            degradation=values.get("degradation", "clean"),
        )


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
    return _degrade(video, spec)


def write_clip(spec: ClipSpec, path: str | Path) -> None:
    """Render a clip into an MP4 file, whole or not at all."""
    write_mp4(path, render(spec), SOURCE_FPS)


def _bounce(position: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return a straight path folded back and forth between two walls."""
    width = high - low
    phase = (position - low) % (2 * width)
    return low + np.minimum(phase, 2 * width - phase)


def _mask(event: ShapeEvent, times: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Return ``[K, size, size]``, True where the shape lies at each of K times in seconds."""
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


def _degrade(video: NDArray[np.uint8], spec: ClipSpec) -> NDArray[np.uint8]:
    """Return ``[T, size, size, 3]`` frames as a bad camera shows them; small frames keep the effect."""
    size = video.shape[1]
    if spec.degradation == "noisy":  # grains of an eighth of the frame, new ones in each frame
        rng = np.random.default_rng([spec.noise_seed, 1])
        cells = rng.integers(-70, 70, (len(video), 16, 16, 1), endpoint=True)
        places = np.arange(size) * 16 // size
        return np.clip(video + cells[:, places][:, :, places], 0, 255).astype(np.uint8)
    if spec.degradation == "blurred":  # a box blur of a quarter of the frame, along both axes
        width = size // 4
        blurred = video.astype(np.float32)
        for axis in (1, 2):
            padded = np.pad(
                blurred,
                [(width // 2, width - width // 2) if a == axis else (0, 0) for a in range(4)],
                mode="edge",
            )
            sums = np.cumsum(padded, axis=axis)
            ends, starts = np.arange(width, width + size), np.arange(size)
            blurred = (np.take(sums, ends, axis=axis) - np.take(sums, starts, axis=axis)) / width
        return blurred.round().clip(0, 255).astype(np.uint8)
    if spec.degradation != "clean":
        raise ValueError(f"unknown degradation {spec.degradation!r}; there are {', '.join(DEGRADATIONS)}")
    return video
