"""Rewards, against numbers worked out by hand."""

from functools import partial

import pytest

from vcr1.records import Box, Completion, Interval, ParseFailure, Sample
from vcr1.rewards import (
    Reward,
    accuracy,
    answer_format,
    mean_box_iou,
    temporal_iou,
    union_interval_iou,
    weighted_total,
)

SAMPLE = Sample(id="s", video="v.mp4", query="a person sits down", target=Interval(4, 10))


def test_temporal_iou_with_the_target():
    # 6..10 is shared, 4..12 is the union.
    assert temporal_iou(Completion("", Interval(6, 12)), SAMPLE) == pytest.approx(4 / 8)
    assert temporal_iou(Completion("", Interval(4, 10)), SAMPLE) == 1
    assert temporal_iou(Completion("", Interval(0, 4)), SAMPLE) == 0


def test_unread_answer_earns_nothing():
    assert temporal_iou(Completion("who knows", ParseFailure("no_answer")), SAMPLE) == 0


def test_format_reads_the_text_alone():
    thought = Completion("<think>hm</think><answer>nonsense</answer>", ParseFailure("no_interval"))
    plain = Completion("<answer>4 to 10</answer>", Interval(4, 10))
    no_think: Reward = partial(answer_format, think=False)
    assert (answer_format(thought, SAMPLE), no_think(thought, SAMPLE)) == (1.0, 0.0)
    assert (answer_format(plain, SAMPLE), no_think(plain, SAMPLE)) == (0.0, 1.0)


def test_total_is_the_weighted_sum():
    assert weighted_total({"iou": 0.5, "format": 1.0}, {"format": 1.0, "iou": 1.0}) == 1.5
    assert weighted_total({"iou": 0.5, "format": 1.0}, {"format": 0.25, "iou": 2.0}) == 1.25
    assert weighted_total({}, {}) == 0


@pytest.mark.parametrize("weights", [{"iou": 1.0}, {"iou": 1.0, "format": 1.0, "fromat": 1.0}])
def test_every_part_has_its_weight(weights):
    with pytest.raises(ValueError, match="format"):
        weighted_total({"iou": 0.5, "format": 1.0}, weights)


def asked(target):
    return Sample(id="s", video="v.mp4", query="?", target=target)


def test_union_iou_with_the_target():
    sample = asked((Interval(0, 2), Interval(4, 6)))
    # 1..2 and 4..5 are shared, 0..6 is the union.
    assert union_interval_iou(Completion("", (Interval(1, 5),)), sample) == pytest.approx(2 / 6)
    assert union_interval_iou(Completion("", (Interval(4, 6), Interval(0, 2), Interval(0, 1))), sample) == 1
    assert union_interval_iou(Completion("", ()), sample) == 0


def test_mean_box_iou_with_the_target():
    half, whole = Box(0, 0, 0.5, 1), Box(0, 0, 1, 1)
    sample = asked((half, whole, half, whole))
    assert mean_box_iou(Completion("", sample.target), sample) == 1
    # 1, 1/2, 0 and 1.
    answer = (half, half, Box(0.5, 0, 1, 1), whole)
    assert mean_box_iou(Completion("", answer), sample) == pytest.approx(2.5 / 4)
    assert mean_box_iou(Completion("", answer[:3]), sample) == 0
    assert mean_box_iou(Completion("", ()), asked(())) == 0


def test_accuracy_is_equality_with_the_target():
    assert accuracy(Completion("", "C"), asked("C")) == 1
    assert accuracy(Completion("", "A"), asked("C")) == 0


@pytest.mark.parametrize("reward", [accuracy, mean_box_iou, union_interval_iou])
def test_no_reward_for_what_could_not_be_read(reward):
    failure = ParseFailure("no_answer")
    assert reward(Completion("who knows", failure), asked(())) == 0
    assert accuracy(Completion("who knows", failure), asked(failure)) == 0
