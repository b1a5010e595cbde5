"""Rewards, against numbers worked out by hand."""

from functools import partial

import pytest

from vcr1.records import Completion, Interval, ParseFailure, Sample
from vcr1.rewards import Reward, answer_format, temporal_iou, weighted_total

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
