"""Pictures of a run: how it learned, and what it answers now."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch

mpl.use("Agg")  # before pyplot: a training machine has no screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from vcr1.records import Box, Interval, VideoClip
from vcr1.records.files import replacing

COLORS = {"truth": "#2a9d5c", "before": "#b0b0b0", "after": "#2667c9", "answer": "#2667c9"}
STRIP_FRAMES = 10


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One clip of a timeline picture: its frames, the question, and spans by name (none: no answer)."""

    clip: VideoClip
    question: str
    spans: Mapping[str, Sequence[Interval]]


@dataclass(frozen=True, slots=True)
class TrackEntry:
    """One clip of a tracking picture: the asked frames, the object, and a box for each by name."""

    clip: VideoClip
    query: str
    boxes: Mapping[str, Sequence[Box]]


def timelines(entries: Sequence[TimelineEntry], path: Path) -> None:
    """For each clip a strip of frames over a timeline with the true and the answered intervals.

    An entry without names of spans, such as a question whose answer is a letter, has only the strip.
    """
    rows = [
        (draw, entry) for entry in entries for draw in (_strip, _timeline) if entry.spans or draw is _strip
    ]
    heights = [1.0 if draw is _strip else 0.75 for draw, _ in rows]
    figure, axes = plt.subplots(
        len(rows),
        1,
        figsize=(9, 1.55 / 1.75 * sum(heights) + 0.2 * (len(rows) == len(entries))),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (draw, entry) in zip(axes[:, 0], rows, strict=True):
        draw(axis, entry)
    axes[-1, 0].set_xlabel("seconds")
    save_figure(figure, path)


def _strip(axis: Axes, entry: TimelineEntry) -> None:
    clip = entry.clip
    count = min(STRIP_FRAMES, len(clip.indices))
    # One picture per equal span of time, so that the strip lines up with the timeline below.
    chosen = [int((slot + 0.5) * len(clip.indices) / count) for slot in range(count)]
    strip = torch.cat([clip.frames[index].permute(1, 2, 0) for index in chosen], dim=1)
    axis.imshow(strip.numpy(), extent=(0.0, clip.duration, 0.0, 1.0), aspect="auto", interpolation="nearest")
    axis.set(xlim=(0, clip.duration), yticks=[])
    axis.tick_params(axis="x", labelsize=7)
    if entry.spans:  # the timeline below has the ticks
        axis.set_xticks([])
    axis.set_title(_line(entry.question), fontsize=9, loc="left", pad=2, parse_math=False)


def _line(text: str) -> str:
    """Return text from outside as a title: one line, and a dollar is a dollar."""
    return " ".join(text.split())


def _timeline(axis: Axes, entry: TimelineEntry) -> None:
    for row, (name, spans) in enumerate(entry.spans.items()):
        if not spans:
            axis.text(0.05, -row, "no answer", fontsize=7, va="center", color="#c0392b")
        for span in spans:
            axis.barh(-row, span.length, left=span.start, height=0.7, color=COLORS.get(name, "#888888"))
    axis.set(xlim=(0, entry.clip.duration), ylim=(-max(len(entry.spans), 1) + 0.4, 0.6))
    axis.set_yticks([-row for row in range(len(entry.spans))], list(entry.spans), fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def tracks(entries: Sequence[TrackEntry], path: Path) -> None:
    """For each clip a row with the asked frames, and the true and the answered boxes drawn into them."""
    columns = max(len(entry.clip.indices) for entry in entries)
    heights = [1.2 * entry.clip.frames.shape[2] / entry.clip.frames.shape[3] + 0.25 for entry in entries]
    figure = plt.figure(figsize=(1.2 * columns, sum(heights) + 0.3), layout="constrained")
    # A row is a figure of its own, because the title of one frame would push the next frame away.
    rows = figure.subfigures(len(entries), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, entry in zip(rows, entries, strict=True):
        axes = row.subplots(1, columns, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
        for frame in range(len(entry.clip.indices)):
            _boxes(axes[frame], entry, frame)
        silent = "".join(f" ({name}: no answer)" for name, boxes in entry.boxes.items() if not boxes)
        title = _line(entry.query) + silent
        row.suptitle(title, x=0.01, horizontalalignment="left", fontsize=8, parse_math=False)
    names = dict.fromkeys(name for entry in entries for name in entry.boxes)
    handles = [Line2D([], [], color=COLORS.get(name, "#888888"), label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    save_figure(figure, path)


def _boxes(axis: Axes, entry: TrackEntry, frame: int) -> None:
    pixels = entry.clip.frames[frame].permute(1, 2, 0)
    height, width = pixels.shape[:2]
    axis.imshow(pixels.numpy(), extent=(0.0, width, height, 0.0), interpolation="nearest")
    for name, boxes in entry.boxes.items():
        if frame < len(boxes):
            box = boxes[frame]
            corner = (box.x0 * width, box.y0 * height)
            sides = ((box.x1 - box.x0) * width, (box.y1 - box.y0) * height)
            axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=COLORS.get(name, "#888888")))


def learning_curve(
    metrics: Path,
    train: Sequence[str],
    held_out: str,
    lines: Mapping[str, float],
    path: Path,
    before: float | None = None,
) -> None:
    """Draw training metrics by update, the held-out metric where it was measured, and baselines as lines.

    Args:
        metrics: a run's ``metrics.csv``.
        train: columns that are drawn smoothed.
        held_out: column that is drawn as points.
        lines: label -> height of a horizontal line.
        path: where to write the PNG.
        before: the held-out metric before the first update, if it was measured.
    """
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for column in train:
        steps, values = column_of(rows, column)
        if values:
            (line,) = axis.plot(steps, values, alpha=0.25, linewidth=1)
            axis.plot(steps, smooth(values), color=line.get_color(), label=f"{column} (smoothed)")
    steps, values = column_of(rows, held_out)
    if before is not None:
        steps, values = [0, *steps], [before, *values]
    if values:
        axis.plot(steps, values, "o-", color="black", label=held_out)
    for (label, height), style in zip(lines.items(), ("--", ":", "-.") * len(lines), strict=False):
        axis.axhline(height, color="gray", linestyle=style, linewidth=1, label=label)
    axis.set(xlabel="update", ylabel=held_out.split("/")[-1])
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def column_of(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the rows that have the column."""
    pairs = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Return the exponential moving average, corrected for its start; a value that is not finite is a gap."""
    smoothed, total, mass = [], 0.0, 0.0
    for value in values:
        if not math.isfinite(value):
            smoothed.append(math.nan)
            continue
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        smoothed.append(total / mass)
    return smoothed


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture whole or not at all, and let go of it."""
    with replacing(path) as scratch:
        figure.savefig(scratch, format="png", dpi=110)
    plt.close(figure)
