"""Rewards: pure functions of a completion and the sample it answers, with values in 0..1.

A completion that could not be parsed earns 0 (paper, "Tasks, data, rewards"), never an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from vcr1.records import (
    Completion,
    GroundedAnswer,
    Interval,
    JudgedCaption,
    JudgeFailure,
    ParseFailure,
    Sample,
    Tracklet,
)
from vcr1.scoring.geometry import box_iou, interval_iou, union_iou
from vcr1.scoring.parsing import has_answer_format, has_boxes_format, has_glue_format

Reward = Callable[[Completion, Sample], float]
"""``(completion, sample) -> value`` in 0..1."""


def temporal_iou(completion: Completion, sample: Sample) -> float:
    """Return IoU of the answered interval with the sample's target interval; 0 where none could be read."""
    if isinstance(completion.value, ParseFailure):
        return 0.0
    target: Interval = sample.target
    return interval_iou(completion.value, target)


def glue_iou(completion: Completion, sample: Sample) -> float:
    """IoU of the union of the answered spans with the union of the true ones; 0 where none could be read.

    Value and ``sample.target`` are `GroundedAnswer`; see `union_iou`.
    """
    value, target = completion.value, sample.target
    if isinstance(value, ParseFailure) or isinstance(value.intervals, ParseFailure):
        return 0.0
    return union_iou(value.intervals, target.intervals)


def letter_accuracy(completion: Completion, sample: Sample) -> float:
    """Return 1 where the letter of a `GroundedAnswer` is the target's, whatever its spans, otherwise 0."""
    value: GroundedAnswer | ParseFailure = completion.value
    return float(not isinstance(value, ParseFailure) and value.letter == sample.target.letter)


def event_recall(completion: Completion, sample: Sample) -> float:
    """Return share of the reference's events that a `JudgedCaption` tells; NaN where its judge failed.

    The paper's caption reward. It is 0 where there is no caption.
    """
    value: JudgedCaption | ParseFailure = completion.value
    if isinstance(value, ParseFailure):
        return 0.0
    return math.nan if isinstance(value.verdict, JudgeFailure) else value.verdict.recall


def mean_box_iou(completion: Completion, sample: Sample) -> float:
    """Return mean over the target's frames of the IoU of the answered box with the target's box.

    It is 0 where no tracklet could be read, or one of another length: its boxes stand for no known frames.
    """
    if isinstance(completion.value, ParseFailure):
        return 0.0
    target: Tracklet = sample.target
    if not target or len(completion.value) != len(target):
        return 0.0
    return math.fsum(map(box_iou, completion.value, target)) / len(target)


def accuracy(completion: Completion, sample: Sample) -> float:
    """Return 1 where the value equals the sample's target, such as a letter or a class, otherwise 0."""
    return float(not isinstance(completion.value, ParseFailure) and completion.value == sample.target)


def answer_format(completion: Completion, sample: Sample, *, think: bool = True) -> float:
    """Return 1 where the whole completion has the asked form, otherwise 0; see `has_answer_format`.

    Args:
        completion: only its text is read.
        sample: not read; every reward takes it.
        think: whether the form has a ``<think>`` block before the answer.
    """
    return float(has_answer_format(completion.text, think))


def boxes_format(completion: Completion, sample: Sample, *, think: bool = True) -> float:
    """1 where the whole completion has the form of boxes, and they could be read and have areas, otherwise 0.

    See `has_boxes_format`.
    """
    value: Tracklet | ParseFailure = completion.value
    readable = not isinstance(value, ParseFailure) and all(box.area > 0 for box in value)
    return float(readable and has_boxes_format(completion.text, think))


def glue_format(completion: Completion, sample: Sample, *, think: bool = True) -> float:
    """1 where the whole completion has a grounded answer's form and its spans could be read, otherwise 0.

    See `has_glue_format`.
    """
    value: GroundedAnswer | ParseFailure = completion.value
    failed = isinstance(value, ParseFailure) or isinstance(value.intervals, ParseFailure)
    return float(not failed and has_glue_format(completion.text, think))


def weighted_total(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Weighted sum of reward parts, ``sum(weights[name] * parts[name])``; the paper's weights are all 1.

    A part that is NaN, as its judge failed, makes the total NaN.

    Raises:
        ValueError: parts and weights that do not bear the same names. A default would hide a misspelt
            weight, and with it a reward that never counts.
    """
    if parts.keys() != weights.keys():
        raise ValueError(f"reward parts {sorted(parts)} against weights {sorted(weights)}")
    return math.fsum(weights[name] * value for name, value in parts.items())
