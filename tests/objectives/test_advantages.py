"""Advantages, against numbers worked out by hand and the papers' formulas as plain loops."""

import math
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcr1.objectives import (
    batch_advantages,
    centred_advantages,
    estimate_advantages,
    group_advantages,
    group_deviations,
    leave_one_out_advantages,
    reward_moments,
    zero_variance,
)
from vcr1.objectives.advantages import ADVANTAGES

torch.set_num_threads(1)

NAN = math.nan


def test_advantages_of_a_group():
    # Mean 1; squares 1, 0, 0, 1 sum to 2 over G - 1 = 3: std = sqrt(2/3) = 0.8164966.
    # 1 / (0.8164966 + 0.0001) = 1.2245949
    found = group_advantages(torch.tensor([[0.0, 1.0, 1.0, 2.0]]))
    assert found.tolist() == [pytest.approx([-1.2245949, 0.0, 0.0, 1.2245949], abs=1e-6)]


def test_every_group_has_its_own_mean_and_spread():
    # 0, 2: mean 1, std sqrt(2). 10, 10.2: mean 10.1, std 0.1 sqrt(2). Large groups drown no small ones.
    found = group_advantages(torch.tensor([[0.0, 2.0], [10.0, 10.2]], dtype=torch.float64))
    first, second = 1 / (math.sqrt(2) + 1e-4), 0.1 / (0.1 * math.sqrt(2) + 1e-4)
    assert found.flatten().tolist() == pytest.approx([-first, first, -second, second])


def test_epsilon_is_added_to_the_spread():
    # 1, 3: mean 2, std sqrt(2); 1 / (sqrt(2) + 1)
    found = group_advantages(torch.tensor([[1.0, 3.0]], dtype=torch.float64), epsilon=1.0)
    assert found.flatten().tolist() == pytest.approx([-0.41421356, 0.41421356])


def test_equal_rewards_have_no_advantage():
    assert group_advantages(torch.full((2, 8), 1.3)).abs().max() < 1e-2
    assert group_advantages(torch.full((1, 4), 2.0)).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 completions, got 1"):
        group_advantages(torch.tensor([[1.0], [2.0]]))


def test_groups_without_variance_are_found():
    rewards = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.1], [0.0, 0.0, 0.0]])
    assert zero_variance(rewards).tolist() == [True, False, True]


def test_equal_rewards_of_a_batch_have_no_advantage_whatever_the_rounding():
    for value in (0.1, 0.3, 1 / 3, 0.7):
        for count in range(2, 60):
            rewards = torch.full((count, 2), value, dtype=torch.float32)
            assert batch_advantages(rewards).abs().max() <= 1e-6


def test_moments_are_summed_in_double_precision():
    # 1,000,000 rewards of 0.1 in float32: their sum in float32 is off by a thousandth and more.
    rewards = torch.full((1000, 1000), 0.1)
    count, total, squares = reward_moments(rewards)
    assert (count, total.dtype) == (1e6, torch.float64)
    exact = float(torch.tensor(0.1))  # the float32 nearest to 0.1
    assert float(total) == pytest.approx(1e6 * exact, rel=1e-12)
    assert float(squares) == pytest.approx(1e6 * exact**2, rel=1e-12)


def test_a_small_difference_of_rewards_is_a_difference():
    assert zero_variance(torch.tensor([[1.0, 1.005], [1.0, 1.0 + 1e-7]])).tolist() == [False, True]


def test_deviations_are_unbiased_and_one_for_each_group():
    # Squares 1, 0, 0, 1 over 3; then 1, 1 over 1 twice over: (1 + 1 + 1 + 1) / 3.
    found = group_deviations(torch.tensor([[0.0, 1.0, 1.0, 2.0], [3.0, 5.0, 3.0, 5.0]], dtype=torch.float64))
    assert found.tolist() == pytest.approx([math.sqrt(2 / 3), math.sqrt(4 / 3)])


def test_rewards_that_were_not_judged_are_left_out():
    # Of 1, 3 and nothing: mean 2, std sqrt(2) with one degree of freedom. A 0 in its place would be felt.
    rewards = torch.tensor([[1.0, NAN, 3.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert group_deviations(rewards).tolist() == pytest.approx([math.sqrt(2), 1.0])
    first, second = 1 / (math.sqrt(2) + 1e-4), 1 / (1 + 1e-4)
    found = group_advantages(rewards)
    assert found.flatten().tolist() == pytest.approx([-first, 0.0, first, -second, 0.0, second])


def test_a_group_with_one_judged_completion_or_none_teaches_nothing():
    rewards = torch.tensor([[NAN, 1.5, NAN], [NAN, NAN, NAN]])
    assert group_advantages(rewards).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert group_deviations(rewards).tolist() == [0.0, 0.0]
    assert zero_variance(rewards).tolist() == [True, True]


def test_variance_is_looked_for_among_the_judged():
    rewards = torch.tensor([[NAN, 1.0, 1.0], [1.0, NAN, 0.0], [0.5, 0.5, 0.5]])
    assert zero_variance(rewards).tolist() == [True, False, True]


@given(
    rewards=st.lists(st.floats(0, 4), min_size=2, max_size=8),
    unjudged=st.lists(st.integers(0, 8), max_size=4),
)
def test_advantages_are_those_of_the_judged_alone(rewards: list[float], unjudged: list[int]):
    alone = torch.tensor([rewards], dtype=torch.float64)
    mixed = list(rewards)
    for place in unjudged:
        mixed.insert(min(place, len(mixed)), NAN)
    group = torch.tensor([mixed], dtype=torch.float64)
    found, kept = group_advantages(group), ~group.isnan()
    assert torch.allclose(found[kept], group_advantages(alone)[0], atol=1e-6)
    assert (found[~kept] == 0).all()
    assert torch.allclose(group_deviations(group), group_deviations(alone))
    assert torch.equal(zero_variance(group), zero_variance(alone))


# ------------------------------------------------------------------------------------------ the relatives


def test_dr_grpo_takes_the_mean_away_and_no_more():
    # Of 0, 1, 1, 4 the mean is 1.5; of 10 and nothing but 20, 15.
    found = centred_advantages(torch.tensor([[0.0, 1.0, 1.0, 4.0], [10.0, NAN, 20.0, NAN]]))
    assert found.tolist() == [[-1.5, -0.5, -0.5, 2.5], [-5.0, 0.0, 5.0, 0.0]]


def test_rloo_compares_with_the_others():
    # 0 with the mean 2 of 1, 1, 4; 1 with 5/3; 4 with 2/3. Of 10 and 20 each is the other's baseline.
    found = leave_one_out_advantages(
        torch.tensor(
            [[0.0, 1.0, 1.0, 4.0], [10.0, NAN, 20.0, NAN], [NAN, 3.0, NAN, NAN]], dtype=torch.float64
        )
    )
    assert found[0].tolist() == pytest.approx([-2.0, -2 / 3, -2 / 3, 10 / 3])
    assert found[1].tolist() == [-10.0, 0.0, 10.0, 0.0]
    assert found[2].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_reinforce_pp_normalises_over_the_batch():
    # 0, 2 and 4, 6: mean 3, squares 9, 1, 1, 9 sum to 20 over 3. The second group is better as a whole.
    rewards = torch.tensor([[0.0, 2.0], [4.0, 6.0]], dtype=torch.float64)
    unit = 1 / (math.sqrt(20 / 3) + 1e-4)
    assert batch_advantages(rewards).flatten().tolist() == pytest.approx([-3 * unit, -unit, unit, 3 * unit])
    # With the baseline, -1, 1, -1, 1: squares sum to 4 over 3.
    unit = 1 / (math.sqrt(4 / 3) + 1e-4)
    found = estimate_advantages("centred_batch", rewards)
    assert found.flatten().tolist() == pytest.approx([-unit, unit, -unit, unit])


def test_a_batch_of_equal_or_single_rewards_teaches_nothing():
    assert batch_advantages(torch.full((2, 3), 0.1)).abs().max() < 1e-2
    assert batch_advantages(torch.tensor([[NAN, 5.0]])).tolist() == [[0.0, 0.0]]
    assert batch_advantages(torch.full((1, 2), NAN)).tolist() == [[0.0, 0.0]]
    assert batch_advantages(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("name", ["batch", "centred_batch"])
def test_ranks_that_add_up_their_moments_are_one_batch(name: str):
    whole = torch.tensor([[0.0, 2.0, NAN], [4.0, 6.0, 1.0], [3.0, 3.0, 5.0]], dtype=torch.float64)
    shares = [whole[:1], whole[1:], whole[:0]]  # three ranks, one of which has lost its samples
    sent: list[torch.Tensor] = []
    for share in shares:
        estimate_advantages(name, share, lambda moments: sent.append(moments) or moments)  # type: ignore[func-returns-value]
    assert len(sent) == 3  # as many messages as ranks
    total = torch.stack(sent).sum(0)
    found = torch.cat([estimate_advantages(name, share, lambda _: total) for share in shares])
    assert torch.allclose(found, estimate_advantages(name, whole))


def test_moments_leave_out_what_was_not_judged():
    assert reward_moments(torch.tensor([[1.0, NAN], [2.0, 3.0]])).tolist() == [3.0, 6.0, 14.0]
    assert reward_moments(torch.empty(0, 8)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["group", "centred", "leave_one_out"])
def test_estimators_of_groups_send_nothing_to_other_ranks(name: str):
    def fail(moments: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    assert estimate_advantages(name, torch.tensor([[0.0, 1.0]]), fail).shape == (1, 2)


def plain(name: str, groups: list[list[float]]) -> list[float]:
    """The papers' formulas over the rewards that are numbers; None of the package's code."""
    found = []
    everything = [r for group in groups for r in group if not math.isnan(r)]
    means = [fmean([r for r in group if not math.isnan(r)] or [0.0]) for group in groups]
    differences = [
        r - mean for group, mean in zip(groups, means, strict=True) for r in group if not math.isnan(r)
    ]
    for group, mean in zip(groups, means, strict=True):
        judged = [r for r in group if not math.isnan(r)]
        for place, reward in enumerate(group):
            others = [r for at, r in enumerate(group) if at != place and not math.isnan(r)]
            if math.isnan(reward):
                found.append(0.0)
            elif name == "group":
                found.append((reward - mean) / ((stdev(judged) if len(judged) > 1 else 0.0) + 1e-4))
            elif name == "centred":
                found.append(reward - mean)
            elif name == "leave_one_out":
                found.append(reward - fmean(others) if others else 0.0)
            else:
                values = everything if name == "batch" else differences
                own = reward if name == "batch" else reward - mean
                spread = stdev(values) if len(values) > 1 else 0.0
                found.append((own - fmean(values)) / (spread + 1e-4))
    return found


rewards_or_nothing = st.one_of(st.floats(0, 4, width=16), st.just(NAN))


@pytest.mark.parametrize("name", ADVANTAGES)
@given(data=st.data())
def test_estimators_are_the_formulas_of_their_papers(name: str, data: st.DataObject):
    size = data.draw(st.integers(2, 5))
    groups = data.draw(
        st.lists(st.lists(rewards_or_nothing, min_size=size, max_size=size), min_size=1, max_size=4)
    )
    found = estimate_advantages(name, torch.tensor(groups, dtype=torch.float64))
    # Rounding of equal rewards is divided by as little as 1e-4.
    assert found.flatten().tolist() == pytest.approx(plain(name, groups), abs=1e-3, rel=1e-6)


@pytest.mark.parametrize("name", sorted(set(ADVANTAGES) - {"batch"}))
def test_estimators_that_compare_within_groups_refuse_a_group_of_one(name: str):
    with pytest.raises(ValueError, match="at least 2 completions, got 1"):
        estimate_advantages(name, torch.tensor([[1.0]]))
