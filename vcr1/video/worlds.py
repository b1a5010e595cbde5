"""Worlds of synthetic clips: what is drawn at random, and the folders in which the clips are kept.

=========  ===============================================================================
events     two shapes of different colours that appear and disappear (``draw_spec``)
motion     one shape that crosses the frame in one of four directions (``draw_motion``)
quality    events, seen by a good camera, a noisy or a blurred one (``draw_quality``)
long       four shapes in a minute or more, each short against it (``draw_long``)
=========  ===============================================================================
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from vcr1.video.synthetic import COLORS, DEGRADATIONS, SHAPES, WORLD_SIZE, ClipSpec, ShapeEvent, write_clip

WORLD_VERSION = "v1"
"""Part of a world's folder name: raise it when clips come out otherwise, and old caches are not reused."""

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

_TIME_STEP = 0.5
_MOTION_SECONDS = 8.0


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


def draw_motion(rng: random.Random) -> ClipSpec:
    """Draw a clip of 8 s with one shape that is always seen and moves left, right, up or down.

    It moves 28 to 56 pixels of the world that way, up to 10 sideways, and stays in the frame.
    """
    across, down = rng.choice(list(DIRECTIONS.values()))
    radius = rng.uniform(15, 21)
    low, high = radius + 1, WORLD_SIZE - radius - 1
    distance, drift = rng.uniform(28, 56), rng.uniform(-10, 10)
    dx, dy = (across * distance, drift) if across else (drift, down * distance)
    shape = ShapeEvent(
        color=rng.choice(list(COLORS)),
        shape=rng.choice(SHAPES),
        start=0.0,
        end=_MOTION_SECONDS,
        x=rng.uniform(low + max(-dx, 0), high - max(dx, 0)),
        y=rng.uniform(low + max(-dy, 0), high - max(dy, 0)),
        vx=dx / _MOTION_SECONDS,
        vy=dy / _MOTION_SECONDS,
        radius=radius,
    )
    background = (rng.randrange(20, 70), rng.randrange(20, 70), rng.randrange(20, 70))
    return ClipSpec(_MOTION_SECONDS, background, rng.randrange(2**32), (shape,))


def direction_of(event: ShapeEvent) -> str:
    """Return a key of ``DIRECTIONS``: the way in which a shape moves most."""
    return max(DIRECTIONS, key=lambda name: event.vx * DIRECTIONS[name][0] + event.vy * DIRECTIONS[name][1])


def draw_quality(rng: random.Random) -> ClipSpec:
    """Draw a clip of events as one of three cameras sees it."""
    return replace(draw_spec(rng), degradation=rng.choice(DEGRADATIONS))


def draw_long(rng: random.Random) -> ClipSpec:
    """Draw a clip of 60 to 80 s with four shapes, each seen for 3 to 5 s."""
    return draw_spec(rng, (60, 70, 80), num_events=4, min_length=3.0, max_length=5.0)


WORLDS: dict[str, Callable[[random.Random], ClipSpec]] = {
    "events": draw_spec,
    "motion": draw_motion,
    "quality": draw_quality,
    "long": draw_long,
}


def build_world(
    folder: str | Path, split: str, count: int, seed: int, kind: str = "events"
) -> list[tuple[Path, ClipSpec]]:
    """``count`` clips of a split as files, made at the first call and found again at later ones.

    Clip i depends on split, seed and i alone, so a smaller world is the beginning of a larger one. The
    files lie in ``<folder>/<split>-<count>-<seed>-<version>`` (other kinds than events have their name
    before it), which is built under another name and
    renamed when complete: an interrupted build leaves nothing that a later one trusts, and of two
    processes that build at once the second finds the first one's folder there and drops its own.

    Args:
        folder: where the worlds are kept.
        split: name of the split.
        count: number of clips.
        seed: makes the split what it is.
        kind: a key of ``WORLDS``.

    Returns:
        ``(path, spec)`` per clip, in order.
    """
    prefix = "" if kind == "events" else f"{kind}-"
    world = Path(folder) / f"{prefix}{split}-{count}-{seed}-{WORLD_VERSION}"
    if (specs := _load_specs(world, count)) is None:
        specs = [WORLDS[kind](random.Random(f"{split}-{seed}-{index}")) for index in range(count)]
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
    """Return the specs of a complete world, or None where it is missing or spoilt."""
    try:
        specs = [ClipSpec.from_json(v) for v in json.loads(_marker(world).read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = len(specs) == count and all(_clip_path(world, index).is_file() for index in range(count))
    return specs if complete else None


def _marker(world: Path) -> Path:
    """Return the file that is written last."""
    return world / "specs.json"


def _clip_path(world: Path, index: int) -> Path:
    return world / f"{index:05d}.mp4"


def _draw_event(
    rng: random.Random, color: str, duration: float, min_length: float, max_length: float
) -> ShapeEvent:
    """Return one shape of a clip; see :func:`draw_spec`."""
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
