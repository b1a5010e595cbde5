"""Interval algebra, against numbers worked out by hand."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.records import Box, Interval
from vcr1.scoring.geometry import (
    bound_box,
    box_iou,
    clip_box,
    clip_interval,
    intersection_over_prediction,
    interval_iou,
    merge_intervals,
    union_iou,
)

seconds = st.floats(-1e6, 1e6)
intervals = st.tuples(seconds, seconds).map(lambda ends: Interval(min(ends), max(ends)))


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 10), (5, 15), 5 / 15),
        ((2, 8), (4, 6), 2 / 6),  # one inside the other
        ((0, 2), (2, 4), 0.0),  # they touch
        ((0, 1), (5, 6), 0.0),
        ((3, 3), (0, 10), 0.0),  # an instant inside an interval
        ((3, 3), (3, 3), 0.0),  # a union without length
    ],
)
def test_iou_by_hand(a, b, iou):
    assert interval_iou(Interval(*a), Interval(*b)) == pytest.approx(iou)


@given(intervals, intervals)
def test_iou_is_symmetric_and_a_fraction(a, b):
    assert interval_iou(a, b) == interval_iou(b, a)
    assert 0 <= interval_iou(a, b) <= 1


@given(intervals)
def test_iou_with_itself_is_one_unless_it_has_no_length(a):
    assert interval_iou(a, a) == (1.0 if a.length > 0 else 0.0)


@given(intervals, intervals)
def test_iou_is_intersection_over_union_measured_apart(a, b):
    inside = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    union = a.length + b.length - inside
    # A product instead of a quotient: the two ways of rounding part only where the union is tiny.
    assert interval_iou(a, b) * union == pytest.approx(inside, abs=1e-9)


@pytest.mark.parametrize(
    ("interval", "clipped"),
    [
        ((2, 5), Interval(2, 5)),
        ((-1, 5), Interval(0, 5)),
        ((8, 12), Interval(8, 10)),
        ((-5, 99), Interval(0, 10)),
        ((10, 12), None),  # only the last instant is left
        ((-2, -1), None),
        ((4, 4), None),
    ],
)
def test_clip_to_ten_seconds(interval, clipped):
    assert clip_interval(Interval(*interval), 10.0) == clipped


@given(intervals, st.floats(0, 1e6))
def test_clipped_interval_lies_in_the_video_and_in_the_interval(interval, duration):
    clipped = clip_interval(interval, duration)
    if clipped is None:
        assert interval_iou(interval, Interval(0, duration)) == 0
    else:
        assert max(0, interval.start) == clipped.start < clipped.end == min(duration, interval.end)


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf")])
def test_clip_refuses_a_duration_that_is_none(duration):
    with pytest.raises(ValueError, match="duration"):
        clip_interval(Interval(0, 1), duration)


# ------------------------------------------------------------------------------------ unions of intervals

lists = st.lists(intervals, max_size=6)


def spans(*ends):
    return [Interval(start, end) for start, end in ends]


@pytest.mark.parametrize(
    ("given_spans", "merged"),
    [
        ([], []),
        ([(4, 6), (0, 2)], [(0, 2), (4, 6)]),
        ([(0, 2), (1, 5), (2, 3)], [(0, 5)]),
        ([(0, 2), (2, 4)], [(0, 4)]),  # they touch
        ([(0, 9), (3, 3), (10, 10)], [(0, 9), (10, 10)]),
    ],
)
def test_merge_by_hand(given_spans, merged):
    assert merge_intervals(spans(*given_spans)) == spans(*merged)


@given(lists)
def test_merged_intervals_are_disjoint_sorted_and_cover_the_same(some):
    merged = merge_intervals(some)
    assert all(a.end < b.start for a, b in pairwise(merged))
    assert all(any(m.start <= i.start and i.end <= m.end for m in merged) for i in some)
    assert {m.start for m in merged} <= {i.start for i in some}
    assert {m.end for m in merged} <= {i.end for i in some}
    assert merge_intervals(merged) == merged


@pytest.mark.parametrize(
    ("prediction", "truth", "iou", "iop"),
    [
        ([(0, 10)], [(5, 15)], 5 / 15, 5 / 10),
        ([(0, 2), (4, 6)], [(1, 5)], 2 / 6, 2 / 4),  # 1..2 and 4..5 of 0..6
        ([(0, 2), (8, 10)], [(0, 2), (4, 6)], 2 / 6, 2 / 4),  # the hole counts to neither
        ([(0, 4), (2, 6), (0, 6)], [(3, 9)], 3 / 9, 3 / 6),  # repeated time counts once
        ([(2, 4)], [(0, 10)], 2 / 10, 1.0),
        ([(0, 10)], [(2, 4)], 2 / 10, 2 / 10),
        ([(0, 1)], [(1, 2)], 0.0, 0.0),
        ([(3, 3)], [(0, 9)], 0.0, 0.0),  # an instant
        ([(3, 3)], [(3, 3)], 0.0, 0.0),
        ([], [(0, 9)], 0.0, 0.0),
        ([(0, 9)], [], 0.0, 0.0),
        ([], [], 0.0, 0.0),
    ],
)
def test_union_measures_by_hand(prediction, truth, iou, iop):
    assert union_iou(spans(*prediction), spans(*truth)) == pytest.approx(iou)
    assert intersection_over_prediction(spans(*prediction), spans(*truth)) == pytest.approx(iop)


@given(lists, lists, st.randoms(use_true_random=False))
def test_union_measures_are_fractions_and_know_no_order_or_repetition(a, b, dice: random.Random):
    again = [*a, *a]
    dice.shuffle(again)
    assert union_iou(a, b) == union_iou(b, a) == union_iou(again, b)
    assert intersection_over_prediction(a, b) == intersection_over_prediction(again, b)
    assert 0 <= union_iou(a, b) <= 1
    assert union_iou(a, b) <= intersection_over_prediction(a, b) + 1e-12
    assert intersection_over_prediction(a, b) <= 1


def test_rounding_makes_no_share_of_more_than_all():
    # Two pieces that fill the whole but for one float between them: their lengths add up to a little more.
    whole = [Interval(0.11, 5.0)]
    pieces = [Interval(0.11, 0.643), Interval(math.nextafter(0.643, 1), 5.0)]
    assert math.fsum(piece.length for piece in pieces) > whole[0].length
    assert union_iou(whole, pieces) == 1.0
    assert intersection_over_prediction(whole, pieces) == 1.0


@given(lists)
def test_a_union_with_itself_is_one_unless_it_has_no_length(a):
    whole = 1.0 if any(interval.length > 0 for interval in a) else 0.0
    assert union_iou(a, a) == intersection_over_prediction(a, a) == whole


@given(intervals, intervals)
def test_union_iou_of_single_intervals_is_their_iou(a, b):
    assert union_iou([a], [b]) == interval_iou(a, b)


# -------------------------------------------------------------------------------------------------- boxes

grid = st.integers(-500, 1500).map(lambda thousandths: thousandths / 1000)
boxes = st.tuples(grid, grid, grid, grid).map(
    lambda c: Box(min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@pytest.mark.parametrize(
    "corners", [(0.5, 0, 0.4, 1), (0, 0.5, 1, 0.4), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)]
)
def test_no_box(corners):
    with pytest.raises(ValueError, match="box"):
        Box(*corners)


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 1 / 7),  # 1/16 of 4/16 + 4/16 - 1/16
        ((0, 0, 1, 1), (0.25, 0.25, 0.75, 0.5), 1 / 8),  # one inside the other
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0.0),  # they touch
        ((0, 0, 0.2, 0.2), (0.5, 0, 0.7, 0.2), 0.0),
        ((0.3, 0.3, 0.3, 0.9), (0.3, 0.3, 0.3, 0.9), 0.0),  # no area
        ((0, 0, 1e-200, 1e-200), (0, 0, 1e-200, 1e-200), 0.0),  # none that a float can hold
    ],
)
def test_box_iou_by_hand(a, b, iou):
    assert box_iou(Box(*a), Box(*b)) == pytest.approx(iou)


@given(boxes, boxes)
def test_box_iou_is_symmetric_and_a_fraction(a, b):
    assert box_iou(a, b) == box_iou(b, a)
    assert 0 <= box_iou(a, b) <= 1
    assert box_iou(a, a) == (1.0 if a.area > 0 else 0.0)


@given(boxes)
def test_clipped_box_lies_in_the_frame(box):
    clipped = clip_box(box)
    assert 0 <= clipped.x0 <= clipped.x1 <= 1
    assert 0 <= clipped.y0 <= clipped.y1 <= 1
    assert clip_box(clipped) == clipped
    assert clipped.area == pytest.approx(box_iou(box, Box(0, 0, 1, 1)) * (1 + box.area - clipped.area))


def test_the_frames_part_of_a_box_by_the_toolkits_rule():
    # In pixels of a frame of 100 x 100: x, y, w, h = -10, 20, 50, 40 becomes 0, 20, 50, 40.
    assert bound_box(Box(-0.1, 0.2, 0.4, 0.6)) == Box(0, 0.2, 0.5, 0.6)  # moved, not cut
    assert bound_box(Box(0.75, 0.5, 1.25, 1.5)) == Box(0.75, 0.5, 1, 1)
    assert bound_box(Box(1.5, 0, 2, 1)) == Box(1, 0, 1, 1)
    assert bound_box(Box(0.25, 0.25, 0.5, 0.75)) == Box(0.25, 0.25, 0.5, 0.75)
