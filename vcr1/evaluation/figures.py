"""Pictures of an evaluation: how good the answers are, and some of them with their frames."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from vcr1.errors import VideoError
from vcr1.evaluation.answers import AnswerRecord
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.statistics import nan_mean
from vcr1.records import Sample
from vcr1.reporting.pictures import (
    TimelineEntry,
    TrackEntry,
    column_of,
    save_figure,
    smooth,
    timelines,
    tracks,
)
from vcr1.video import GuardedReader, PatchGrid

log = logging.getLogger(__name__)

IOU = "mIoU"
BINS = 20
GRID = PatchGrid()


def iou_histogram(ious: Sequence[float], path: Path) -> None:
    """Draw how many answers have which IoU."""
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    axis.hist(list(ious), bins=BINS, range=(0.0, 1.0), color="#2667c9")
    axis.axvline(nan_mean(ious), color="black", linestyle="--", linewidth=1, label="mean")
    axis.set(xlabel="IoU", ylabel="answers", xlim=(0, 1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def recall_curves(runs: Mapping[str, Sequence[float]], path: Path) -> None:
    """Share of answers that reach each IoU, a curve for each run.

    Args:
        runs: label -> IoU of each answer.
        path: where to write the PNG.
    """
    thresholds = np.linspace(0.0, 1.0, 101)
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    for label, ious in runs.items():
        values = np.asarray(ious)
        axis.plot(thresholds, [(values >= threshold).mean() for threshold in thresholds], label=label)
    axis.set(xlabel="k", ylabel="R@k", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def learning_curves(runs: Mapping[str, Path], column: str, path: Path) -> bool:
    """Return a column of several runs' ``metrics.csv`` by update, smoothed; False where none has it.

    Args:
        runs: label -> the run's ``metrics.csv``.
        column: e.g. ``train/reward``.
        path: where to write the PNG.
    """
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for label, metrics in runs.items():
        with metrics.open(newline="", encoding="utf-8") as file:
            steps, values = column_of(list(csv.DictReader(file)), column)
        if values:
            axis.plot(steps, smooth(values) if column.startswith("train/") else values, label=label)
    drawn = bool(axis.get_legend_handles_labels()[0])
    if drawn:
        axis.set(xlabel="update", ylabel=column)
        axis.legend(fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        save_figure(figure, path)
    else:
        plt.close(figure)
    return drawn


def ious_of(answers: Sequence[AnswerRecord]) -> list[float]:
    """Return IoU of each answer, failures included as 0; none in a task that has no IoU."""
    return [answer.scores[IOU] for answer in answers if IOU in answer.scores]


def chosen_examples(
    answers: Sequence[AnswerRecord], metric: str, count: int
) -> dict[str, list[AnswerRecord]]:
    """Return the best, middle and worst answers by a metric, no answer twice; of equals the first.

    Args:
        answers: of one benchmark.
        metric: by which they are ordered.
        count: of each kind.

    Returns:
        ``best``, ``median`` and ``worst``; shorter where there are few answers.
    """
    ranked = sorted(
        (answer for answer in answers if answer.scores.get(metric) is not None),
        key=lambda answer: -answer.scores[metric],
    )
    best, rest = ranked[:count], ranked[count:]
    worst, rest = rest[len(rest) - min(count, len(rest)) :], rest[: len(rest) - min(count, len(rest))]
    start = max(0, (len(rest) - count) // 2)
    return {"best": best, "median": rest[start : start + count], "worst": worst[::-1]}


def draw_examples(
    benchmark: Benchmark, answers: Sequence[AnswerRecord], path: Path, reader: GuardedReader | None = None
) -> bool:
    """Frames, timelines and boxes of answers; False where there is nothing to draw, such as letters.

    A video that cannot be read is left out.

    Args:
        benchmark: of the answers.
        answers: which are drawn, in this order.
        path: where to write the PNG.
        reader: decodes the videos; None for one with the usual limits.
    """
    reader = reader or GuardedReader()
    samples = {sample.id: sample for sample in benchmark.samples}
    spans, boxes = [], []
    for answer in answers:
        entry = _entry(benchmark, samples[answer.id], answer, reader) if answer.id in samples else None
        if isinstance(entry, TimelineEntry):
            spans.append(entry)
        elif isinstance(entry, TrackEntry):
            boxes.append(entry)
    if spans:
        timelines(spans, path)
    elif boxes:
        tracks(boxes, path)
    return bool(spans or boxes)


def _entry(
    benchmark: Benchmark, sample: Sample, answer: AnswerRecord, reader: GuardedReader
) -> TimelineEntry | TrackEntry | None:
    """Return one clip of a picture."""
    task = benchmark.task
    value = task.shift(task.parse(answer.completion, sample), answer.shown_from)
    try:
        clip = reader.clip(sample.source, benchmark.budget, GRID, frames=task.frames)
    except VideoError as error:
        log.warning("no picture of sample %s: %s", sample.id, error)
        return None
    score = next(iter(answer.scores.values()))
    title = f"{sample.query[:90]}  ({next(iter(answer.scores))} {score:.2f})"
    if boxes := task.boxes(sample.target):
        return TrackEntry(clip, title, {"truth": boxes, "answer": task.boxes(value)})
    if spans := task.spans(sample.target):
        return TimelineEntry(clip, title, {"truth": spans, "answer": task.spans(value)})
    return TimelineEntry(clip, f"{title}: {_short(answer)}", {})


def _short(answer: AnswerRecord) -> str:
    return answer.completion.strip().replace("\n", " ")[-60:] or str(answer.failure)
