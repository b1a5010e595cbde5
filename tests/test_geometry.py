"""Interval algebra, against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.geometry import clip_interval, interval_iou
from vcr1.records import Interval

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
