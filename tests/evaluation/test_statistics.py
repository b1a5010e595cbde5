"""Intervals, paired differences, pass@k: numbers that can be worked out by hand."""

import math

import pytest

from vcr1.evaluation import best_at_k, difference, estimates, pass_at_k


def test_an_estimate_is_the_mean_and_brackets_it() -> None:
    found = estimates({"a": [0.0, 1.0] * 50, "b": [0.25] * 100})
    assert found["a"].value == 0.5
    # The mean of 100 coins has a standard deviation of 0.05: its middle 95 % is about 0.4 to 0.6.
    assert found["a"].low == pytest.approx(0.4, abs=0.02)
    assert found["a"].high == pytest.approx(0.6, abs=0.02)
    assert (found["b"].value, found["b"].low, found["b"].high) == (0.25, 0.25, 0.25)


def test_the_same_numbers_have_the_same_intervals() -> None:
    values = [number / 37 for number in range(38)]
    assert estimates({"a": values}) == estimates({"a": values})
    assert estimates({"a": values}, seed=1) != estimates({"a": values})


def test_samples_without_a_verdict_are_left_out() -> None:
    found = estimates({"a": [1.0, math.nan, 0.5, math.nan]})["a"]
    assert found.value == 0.75
    assert 0.5 <= found.low <= found.high <= 1.0
    nothing = estimates({"a": [math.nan, math.nan]})["a"]
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimates({"a": []})


def test_a_paired_difference_sees_what_unpaired_means_hide() -> None:
    first = [number / 100 for number in range(100)]
    second = [value + 0.01 for value in first]  # every sample better by the same little
    found = difference(first, second)
    assert found.value == pytest.approx(0.01)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    # No resampled difference lies on the other side: (0 + 1) of 1001, both sides together.
    assert found.p == pytest.approx(2 / 1001)


def test_no_difference_is_not_significant() -> None:
    found = difference([0.0, 1.0], [0.0, 1.0])
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="no pairs"):
        difference([math.nan], [1.0])


def test_samples_may_count_by_their_weight() -> None:
    found = estimates({"a": [1.0, 2.0, math.nan]}, [2.0, 6.0, 5.0])["a"]
    assert found.value == 14 / 8
    assert (found.low, found.high) == (1.0, 2.0)  # resamples of one of them alone
    gap = difference([1.0, 2.0, 0.0], [1.5, 3.0, math.nan], [2.0, 6.0, 5.0])
    assert gap.value == 7 / 8
    assert estimates({"a": [1.0, 2.0]}, [3.0, 3.0]) == estimates({"a": [1.0, 2.0]})


def test_pass_at_k_is_the_chance_that_one_of_k_is_right() -> None:
    # Two of four right: both of two draws wrong in 1 of 6 choices.
    assert pass_at_k(2, 4, 2) == pytest.approx(5 / 6)
    assert pass_at_k(0, 4, 4) == 0.0
    assert pass_at_k(1, 4, 4) == 1.0
    assert pass_at_k(1, 4, 1) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="k=5"):
        pass_at_k(1, 4, 5)


def test_best_at_k_of_zeros_and_ones_is_pass_at_k() -> None:
    assert best_at_k([0.0, 1.0, 1.0, 0.0], 2) == pytest.approx(pass_at_k(2, 4, 2))
    # Of 1, 2, 4 the pairs' best are 2, 4, 4.
    assert best_at_k([4.0, 1.0, 2.0], 2) == pytest.approx(10 / 3)
    assert math.isnan(best_at_k([1.0, math.nan], 2))
