"""Metrics over a test set, and the baselines that answer without looking at the video.

All shares are fractions in 0..1. A sample that could not be parsed or loaded belongs into the values
with 0: dropping it would shrink the denominator.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vcr1.records import Box, Interval
from vcr1.scoring.geometry import interval_iou

MOST_TARGETS = 2000
"""An even selection of about so many targets decides which constant answer is best."""

# Elements of one block of the candidates x targets table: 2 MB of float64 stays in the cache.
_BLOCK = 1 << 18


def mean(values: Sequence[float]) -> float:
    """Return arithmetic mean.

    Raises:
        ValueError: no values; a mean of nothing is no 0.
    """
    if not values:
        raise ValueError("mean of no values")
    return math.fsum(values) / len(values)


def recall_at(values: Sequence[float], threshold: float) -> float:
    """Return share of the values that reach the threshold (``>=``).

    Raises:
        ValueError: no values.
    """
    return mean([float(value >= threshold) for value in values])


def summarise_iou(ious: Sequence[float], thresholds: Sequence[float] = (0.3, 0.5, 0.7)) -> dict[str, float]:
    """Mean IoU (``mIoU``) and recall at each threshold (``R@0.5``), as the grounding benchmarks report.

    Raises:
        ValueError: no values.
    """
    recalls = {f"R@{threshold:g}": recall_at(ious, threshold) for threshold in thresholds}
    return {"mIoU": mean(ious)} | recalls


def average_overlap(per_sequence_ious: Sequence[Sequence[float]]) -> float:
    """Average overlap (AO) of GOT-10k (arXiv 1810.11981): the mean over sequences of their mean box IoU.

    Every sequence counts the same, however many frames it has. Which frames belong into it is for the
    caller to say: GOT-10k leaves out the first, whose box is given, and those without the object. The
    paper's class-balanced mAO is the mean of this over the object classes.

    Raises:
        ValueError: no sequences, or one without frames.
    """
    return mean([mean(ious) for ious in per_sequence_ious])


def success_rate(per_sequence_ious: Sequence[Sequence[float]], threshold: float) -> float:
    """Success rate (SR) of GOT-10k (arXiv 1810.11981): frames whose box IoU exceeds the threshold (``>``).

    The mean over sequences of each one's share of such frames, with the frames as in `average_overlap`.

    Raises:
        ValueError: no sequences, or one without frames.
    """
    return mean([mean([float(iou > threshold) for iou in ious]) for ious in per_sequence_ious])


def accuracy_by(values: Sequence[float], categories: Sequence[str]) -> dict[str, float]:
    """Return mean value per category, in the order of the categories' names; empty for no values.

    Raises:
        ValueError: values and categories of different number.
    """
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for value, category in zip(values, categories, strict=True):
        groups[category].append(value)
    return {category: mean(groups[category]) for category in sorted(groups)}


def gqa_summary(correct: Sequence[float], ious: Sequence[float], iops: Sequence[float]) -> dict[str, float]:
    """Return the metrics of NExT-GQA (arXiv 2309.01327) over samples of grounded question answering.

    Shares count values at the threshold (``>=``), as the authors' code does. That code knows one predicted
    span and takes the best over the true ones, whereas `union_iou` and `intersection_over_prediction`
    compare unions; where a sample has one true span and one predicted one, both agree.

    Args:
        correct: 1 per rightly answered sample, otherwise 0.
        ious: IoU of predicted and true time per sample.
        iops: share of the predicted time that is true, per sample.

    Returns:
        ``Acc``; ``mIoU``, ``IoU@0.3``, ``IoU@0.5``; ``mIoP``, ``IoP@0.3``, ``IoP@0.5``; and ``Acc@GQA``,
        the share of samples that are correct with an IoP of at least 0.5.

    Raises:
        ValueError: no samples, or arguments of different length.
    """
    grounded = [hit * (iop >= 0.5) for hit, _, iop in zip(correct, ious, iops, strict=True)]
    summary = {"Acc": mean(correct)}
    for name, values in (("IoU", ious), ("IoP", iops)):
        summary[f"m{name}"] = mean(values)
        summary |= {f"{name}@{threshold:g}": recall_at(values, threshold) for threshold in (0.3, 0.5)}
    return summary | {"Acc@GQA": mean(grounded)}


def best_constant(targets: Sequence[Interval], step: float = 0.5, limit: float | None = None) -> Interval:
    """Return the one answer that earns the highest mean IoU over the targets, searched on a grid.

    Candidates are all ``(i * step, j * step)`` with ``0 <= i < j``; of equals the earliest start, then
    the earliest end wins. numpy, because a real training set has 1e4 targets and 1e5 candidates.

    Args:
        targets: intervals in seconds.
        step: spacing of the grid in seconds.
        limit: the grid ends at its first point at or after this many seconds; by default the
            latest end of the targets.

    Raises:
        ValueError: no targets, or a step or limit that is not positive.
    """
    if not targets:
        raise ValueError("best constant answer to no targets")
    if step <= 0 or (limit is not None and limit <= 0):
        raise ValueError(f"step and limit must be positive: {step}, {limit}")
    last = max(target.end for target in targets) if limit is None else limit
    first, second = np.triu_indices(max(1, math.ceil(last / step)) + 1, k=1)
    chosen = targets[:: max(1, len(targets) // MOST_TARGETS)]
    best = int(np.argmax(_total_ious(first * step, second * step, chosen)))
    return Interval(float(first[best] * step), float(second[best] * step))


def _total_ious(
    starts: NDArray[np.floating], ends: NDArray[np.floating], targets: Sequence[Interval]
) -> NDArray[np.float64]:
    """Return sum over the targets of their IoU with each candidate; candidates have a length.

    The formula is that of `interval_iou`, block by block so that memory stays bounded.
    """
    target_starts = np.array([target.start for target in targets])
    target_ends = np.array([target.end for target in targets])
    totals = np.empty(len(starts))
    rows = max(1, _BLOCK // len(targets))
    for row in range(0, len(starts), rows):
        block = slice(row, row + rows)
        start, end = starts[block, None], ends[block, None]
        intersection = np.minimum(end, target_ends) - np.maximum(start, target_starts)
        hull = np.maximum(end, target_ends) - np.minimum(start, target_starts)
        totals[block] = (np.maximum(intersection, 0) / hull).sum(axis=1)
    return totals


def constant_baselines(
    train: Sequence[tuple[float, Interval]], test: Sequence[tuple[float, Interval]]
) -> dict[str, list[float]]:
    """Return IoU per test sample of answers that see no video, fitted on the training set.

    Args:
        train: duration in seconds and target of each training sample.
        test: the same of each test sample.

    Returns:
        ``constant``: one answer to all; ``constant_per_duration``: one answer per distinct duration
        (compared exactly), and the constant for durations that the training set lacks.

    Raises:
        ValueError: no training samples.
    """
    groups: defaultdict[float, list[Interval]] = defaultdict(list)
    for duration, target in train:
        groups[duration].append(target)
    constant = best_constant([target for _, target in train])
    asked = {duration for duration, _ in test} & groups.keys()
    by_duration = {duration: best_constant(groups[duration]) for duration in asked}
    return {
        "constant": [interval_iou(constant, target) for _, target in test],
        "constant_per_duration": [
            interval_iou(by_duration.get(duration, constant), target) for duration, target in test
        ],
    }


def best_constant_box(targets: Sequence[Box], step: float = 0.1) -> Box:
    """Return the one box that earns the highest mean IoU over the targets, searched on a grid of corners.

    An even selection of `MOST_TARGETS` decides where there are many.

    Raises:
        ValueError: no targets.
    """
    if not targets:
        raise ValueError("best constant box for no targets")
    chosen = targets[:: max(1, len(targets) // MOST_TARGETS)]
    edges = np.arange(0, 1 + step / 2, step)
    first, second = np.triu_indices(len(edges), k=1)
    spans = np.stack([edges[first], edges[second]], axis=-1)  # [S, 2]
    corners = np.array([(box.x0, box.y0, box.x1, box.y1) for box in chosen])
    areas = np.array([box.area for box in chosen])
    wide = _overlap(spans, corners[:, 0], corners[:, 2])  # [S, targets]
    high = _overlap(spans, corners[:, 1], corners[:, 3])
    lengths = spans[:, 1] - spans[:, 0]
    best, best_total = (0, 0), -1.0
    for column in range(len(spans)):
        shared = wide[column] * high
        totals = (shared / (lengths[column] * lengths[:, None] + areas - shared)).sum(axis=1)
        row = int(totals.argmax())
        if totals[row] > best_total:
            best, best_total = (column, row), float(totals[row])
    (x0, x1), (y0, y1) = spans[best[0]], spans[best[1]]
    return Box(float(x0), float(y0), float(x1), float(y1))


def _overlap(
    spans: NDArray[np.floating], starts: NDArray[np.floating], ends: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return ``[S, targets]``: length that each of S spans shares with each target, along one axis."""
    shared = np.minimum(spans[:, 1:], ends) - np.maximum(spans[:, :1], starts)
    return np.maximum(shared, 0.0)
