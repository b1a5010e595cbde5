"""Metrics and blind baselines, against numbers worked out by hand."""

import random

import pytest

from vcr1.records import Box, Interval
from vcr1.scoring.geometry import box_iou, interval_iou
from vcr1.scoring.metrics import (
    MOST_TARGETS,
    accuracy_by,
    average_overlap,
    best_constant,
    best_constant_box,
    constant_baselines,
    gqa_summary,
    mean,
    recall_at,
    success_rate,
    summarise_iou,
)


def test_recall_counts_values_at_the_threshold():
    assert recall_at([0.2, 0.5, 0.7, 0.0], 0.5) == 0.5
    assert recall_at([0.2], 0.0) == 1
    assert recall_at([0.2], 0.3) == 0


def test_summary_of_ious():
    # Sum 2.0 over five; the zero of a failed sample stays in the denominator.
    assert summarise_iou([1.0, 0.5, 0.3, 0.2, 0.0]) == pytest.approx(
        {"mIoU": 0.4, "R@0.3": 0.6, "R@0.5": 0.4, "R@0.7": 0.2}
    )
    assert list(summarise_iou([1.0], thresholds=[0.5])) == ["mIoU", "R@0.5"]


@pytest.mark.parametrize(
    "metric", [mean, summarise_iou, best_constant, best_constant_box, lambda none: recall_at(none, 0.5)]
)
def test_nothing_has_no_metric(metric):
    with pytest.raises(ValueError, match="no "):
        metric([])


def test_what_shares_nothing_counts_nothing_and_not_less():
    # Each target alone earns 1/3; were distance to count against an answer, the middle one would win.
    targets = [Interval(0, 1), Interval(10, 11), Interval(12, 13)]
    assert best_constant(targets, step=1.0) == Interval(0, 1)


@pytest.mark.parametrize("many", [2 * MOST_TARGETS, 2 * MOST_TARGETS + 1])
def test_the_best_constant_of_many_targets_is_not_that_of_the_first_ones(many):
    first, rest = MOST_TARGETS, many - MOST_TARGETS + 400
    spans = [Interval(0, 1)] * (first - 400) + [Interval(3, 4)] * rest
    assert best_constant(spans, step=1.0) == Interval(3, 4)
    near, far = Box(0.0, 0.0, 0.2, 0.2), Box(0.6, 0.6, 1.0, 1.0)
    assert best_constant_box([near] * (first - 400) + [far] * rest, step=0.2).x0 == pytest.approx(0.6)


def test_best_constant_meets_a_single_target_on_the_grid():
    assert best_constant([Interval(1.5, 4.0)]) == Interval(1.5, 4.0)
    assert best_constant([Interval(1.4, 4.1)]) == Interval(1.5, 4.0)


def test_best_constant_follows_the_majority():
    # 2..4 twice and 0..8 once: 2..4 earns 1 + 1 + 2/8, and 0..8 earns 1 + 2/8 + 2/8.
    targets = [Interval(2, 4), Interval(0, 8), Interval(2, 4)]
    assert best_constant(targets, step=2) == Interval(2, 4)
    assert best_constant(targets[:2] + targets[1:2], step=2) == Interval(0, 8)


def test_best_constant_prefers_the_earliest_of_equals():
    assert best_constant([Interval(4, 6), Interval(0, 2)], step=2) == Interval(0, 2)


def test_best_constant_stays_under_the_limit():
    assert best_constant([Interval(0, 8)], step=1, limit=5) == Interval(0, 5)
    assert best_constant([Interval(0, 8)], step=2, limit=5) == Interval(0, 6)  # first grid point past it


def test_best_constant_agrees_with_a_search_by_hand():
    dice = random.Random(0)
    ends = [sorted((dice.uniform(0, 9), dice.uniform(0, 9))) for _ in range(40)]
    targets = [Interval(start, end) for start, end in ends]
    candidates = [Interval(i, j) for i in range(9) for j in range(i + 1, 10)]
    earned = {c: mean([interval_iou(c, target) for target in targets]) for c in candidates}
    assert best_constant(targets, step=1.0, limit=9) == max(candidates, key=earned.__getitem__)


@pytest.mark.parametrize(("step", "limit"), [(0, None), (-1, None), (0.5, 0), (0.5, -3)])
def test_best_constant_refuses_an_empty_grid(step, limit):
    with pytest.raises(ValueError, match="positive"):
        best_constant([Interval(0, 1)], step, limit)


def test_baselines_are_fitted_on_train_and_judged_on_test():
    train = [(10.0, Interval(0, 2)), (10.0, Interval(0, 2)), (20.0, Interval(4, 8))]
    test = [(10.0, Interval(0, 4)), (20.0, Interval(4, 8)), (30.0, Interval(0, 1))]
    # To all: 0..2. Per duration: 0..2 for 10 s, 4..8 for 20 s, and 0..2 again for the unseen 30 s.
    assert constant_baselines(train, test) == {
        "constant": [0.5, 0.0, 0.5],
        "constant_per_duration": [0.5, 1.0, 0.5],
    }


def test_baselines_of_an_empty_set():
    # Durations that round alike are two.
    train = [(10.2, Interval(0, 2)), (10.2, Interval(0, 2)), (10.4, Interval(5, 9))]
    alone = constant_baselines(train, [(10.4, Interval(5, 9)), (10.0, Interval(0, 2))])
    assert alone["constant_per_duration"] == [1.0, 1.0]  # its own answer; the constant of all where none is
    assert alone["constant"] == [0.0, 1.0]
    assert constant_baselines([(1.0, Interval(0, 1))], []) == {"constant": [], "constant_per_duration": []}
    with pytest.raises(ValueError, match="no targets"):
        constant_baselines([], [(1.0, Interval(0, 1))])


def corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def test_best_constant_box_meets_a_single_target_on_the_grid():
    assert corners(best_constant_box([Box(0.2, 0.3, 0.7, 0.9)])) == pytest.approx((0.2, 0.3, 0.7, 0.9))
    assert corners(best_constant_box([Box(0.21, 0.28, 0.69, 0.92)])) == pytest.approx((0.2, 0.3, 0.7, 0.9))
    # What lies outside the frame cannot be met: the box ends at the frame.
    assert corners(best_constant_box([Box(-0.5, 0.0, 0.5, 2.0)])) == pytest.approx((0.0, 0.0, 0.5, 1.0))


def test_best_constant_box_follows_the_majority():
    # The left half twice, the whole frame once: the half earns 1 + 1 + 1/2, the whole 1/2 + 1/2 + 1.
    half, whole = Box(0, 0, 0.5, 1), Box(0, 0, 1, 1)
    assert best_constant_box([half, whole, half], step=0.5) == half
    assert best_constant_box([half, whole, whole], step=0.5) == whole


def test_best_constant_box_prefers_the_first_of_equals():
    # Two quarters that do not touch earn 1 + 0 each; the whole frame earns 1/4 + 1/4.
    upper, lower = Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1)
    assert best_constant_box([lower, upper], step=0.5) == upper


def test_best_constant_box_agrees_with_a_search_by_hand():
    dice = random.Random(0)
    targets = []
    for _ in range(20):
        (x0, x1), (y0, y1) = (sorted((dice.random(), dice.random())) for _ in range(2))
        targets.append(Box(x0, y0, x1, y1))
    edges = [0.0, 0.25, 0.5, 0.75, 1.0]
    spans = [(a, b) for i, a in enumerate(edges) for b in edges[i + 1 :]]
    candidates = [Box(x0, y0, x1, y1) for x0, x1 in spans for y0, y1 in spans]
    earned = {box: mean([box_iou(box, target) for target in targets]) for box in candidates}
    assert best_constant_box(targets, step=0.25) == max(candidates, key=earned.__getitem__)


def test_best_constant_box_of_many_targets_takes_an_even_selection():
    # 20,002 targets: every second one is looked at, and those are the left half.
    half, other = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
    assert best_constant_box([half, other] * 10_001, step=0.5) == half


def test_a_target_without_an_area_does_not_stop_the_search():
    point, half = Box(0.3, 0.3, 0.3, 0.3), Box(0, 0, 0.5, 1)
    assert best_constant_box([point, half], step=0.5) == half


def test_sequences_count_the_same_however_long():
    tracks = [[1.0, 0.5], [0.2, 0.2, 0.8, 0.8]]
    # 0.75 and 0.5; all six frames together would make 3.5 / 6.
    assert average_overlap(tracks) == pytest.approx(0.625)
    # Over 0.5 are 1 of 2, since 0.5 itself does not exceed it, and 2 of 4; over 0.75 the same.
    assert success_rate(tracks, 0.5) == success_rate(tracks, 0.75) == pytest.approx(0.5)
    assert success_rate(tracks, 0.4) == pytest.approx((1 + 0.5) / 2)
    assert success_rate(tracks, 0.9) == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("tracks", [[], [[]], [[0.5], []]])
def test_no_overlap_of_nothing(tracks):
    with pytest.raises(ValueError, match="no values"):
        average_overlap(tracks)
    with pytest.raises(ValueError, match="no values"):
        success_rate(tracks, 0.5)


def test_accuracy_per_category():
    found = accuracy_by([1, 0, 1, 1], ["when", "how", "when", "how"])
    assert found == {"how": 0.5, "when": 1.0}
    assert list(found) == ["how", "when"]
    assert accuracy_by([], []) == {}
    with pytest.raises(ValueError, match="zip"):
        accuracy_by([1, 0], ["when"])


def test_summary_of_grounded_answers():
    # Right and grounded; right but elsewhere; wrong but grounded; right, and grounded just at 0.5.
    found = gqa_summary([1, 1, 0, 1], ious=[0.6, 0.0, 0.3, 0.5], iops=[1.0, 0.2, 0.8, 0.5])
    assert found == pytest.approx(
        {
            "Acc": 0.75,
            "mIoU": 0.35,
            "IoU@0.3": 0.75,
            "IoU@0.5": 0.5,
            "mIoP": 0.625,
            "IoP@0.3": 0.75,
            "IoP@0.5": 0.75,
            "Acc@GQA": 0.5,
        }
    )


def test_summary_of_grounded_answers_needs_all_three_of_every_sample():
    with pytest.raises(ValueError, match="no values"):
        gqa_summary([], [], [])
    with pytest.raises(ValueError, match="zip"):
        gqa_summary([1, 0], [0.5, 0.5], [0.5])
