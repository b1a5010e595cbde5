"""Advantages and the loss, against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcr1.grpo import group_advantages, group_deviations, grpo_loss, k3, masked_mean, zero_variance

torch.set_num_threads(1)

LN2 = math.log(2)

# One prompt, a completion of three tokens and one of a single token.
MASK = torch.tensor([[[True, True, True], [True, False, False]]])
LOGPROBS = torch.tensor([[[-1.0, -2.0, -3.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
# ref - lp is ln 2, 0, -ln 2 and ln 2, so exp(ref - lp) is 2, 1, 1/2 and 2.
REFERENCE = LOGPROBS + torch.tensor([[[LN2, 0.0, -LN2], [LN2, 0.0, 0.0]]], dtype=torch.float64)

log_ratios = st.floats(-20, 20)


# -------------------------------------------------------------------------------------------- advantages


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


NAN = math.nan


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


# ---------------------------------------------------------------------------------------------------- KL


def test_k3_by_hand():
    # exp(d) - d - 1 with d = ref - lp: 2 - ln 2 - 1, 0, 1/2 + ln 2 - 1
    found = k3(LOGPROBS, REFERENCE)[0, 0].tolist()
    assert found == pytest.approx([1 - LN2, 0.0, LN2 - 0.5])


@given(difference=log_ratios)
def test_k3_is_never_negative(difference: float):
    found = k3(torch.tensor([0.0], dtype=torch.float64), torch.tensor([difference], dtype=torch.float64))
    assert found.item() >= -1e-15  # 1 - 1 leaves a rounding error where the difference is tiny
    if abs(difference) > 1e-3:
        assert found.item() > 0


def test_k3_estimates_the_divergence_without_bias():
    # Policy (1/2, 1/2), reference (1/4, 3/4): the mean under the policy is
    # KL = 1/2 ln(1/2 : 1/4) + 1/2 ln(1/2 : 3/4) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)
    policy = torch.tensor([0.5, 0.5], dtype=torch.float64)
    reference = torch.tensor([0.25, 0.75], dtype=torch.float64)
    mean = (policy * k3(policy.log(), reference.log())).sum()
    assert mean.item() == pytest.approx(0.5 * math.log(4 / 3))


def test_k3_pulls_towards_the_reference():
    # d k3 / d lp = 1 - exp(ref - lp): 1 - 2, 0, 1 - 1/2
    logprobs = LOGPROBS.clone().requires_grad_()
    k3(logprobs, REFERENCE).sum().backward()
    assert logprobs.grad[0, 0].tolist() == pytest.approx([-1.0, 0.0, 0.5])


# -------------------------------------------------------------------------------------------------- loss


def test_loss_without_a_reference():
    # The ratio is 1, so a token costs -A: the completions cost -1 and 2, their mean is 1/2.
    result = grpo_loss(LOGPROBS, ADVANTAGES, MASK)
    assert result.loss.item() == pytest.approx(0.5)
    assert (result.kl.item(), result.clip_fraction.item()) == (0.0, 0.0)


@pytest.mark.parametrize("kl_weight", [0.5, 0.04, 0.0])
def test_loss_with_a_reference(kl_weight: float):
    # KL of the long completion: ((1 - ln 2) + 0 + (ln 2 - 1/2)) / 3 = 1/6; of the short one: 1 - ln 2.
    # Loss: mean of -1 + beta / 6 and 2 + beta (1 - ln 2).
    result = grpo_loss(LOGPROBS, ADVANTAGES, MASK, reference=REFERENCE, kl_weight=kl_weight)
    assert result.loss.item() == pytest.approx(((-1 + kl_weight / 6) + (2 + kl_weight * (1 - LN2))) / 2)
    # The logged KL is a mean over the four tokens: (1/2 + 1 - ln 2) / 4, whatever its weight.
    assert result.kl.item() == pytest.approx((1.5 - LN2) / 4)


def test_a_long_and_a_short_completion_weigh_the_same():
    # Tokens 4 against 1 with advantages 1 and -1: 0. A mean over all tokens would give -3/5.
    mask = torch.tensor([[[True] * 4, [True, False, False, False]]])
    result = grpo_loss(torch.zeros(1, 2, 4), torch.tensor([[1.0, -1.0]]), mask)
    assert result.loss.item() == 0.0


def test_loss_of_a_batch_is_the_mean_of_its_micro_batches():
    # So that accumulating micro-batches of equal size is the same as one batch.
    generator = torch.Generator().manual_seed(0)
    logprobs = -torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    reference = -torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    advantages = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5, 1, 3], [2, 2, 1]])[..., None]
    whole = grpo_loss(logprobs, advantages, mask, reference=reference).loss
    halves = [
        grpo_loss(logprobs[i : i + 1], advantages[i : i + 1], mask[i : i + 1], reference=reference[i : i + 1])
        for i in (0, 1)
    ]
    assert whole.item() == pytest.approx((halves[0].loss + halves[1].loss).item() / 2)


def test_padding_does_not_count():
    padded = LOGPROBS.masked_fill(~MASK, -77.0)
    other = REFERENCE.masked_fill(~MASK, -70.0)
    result = grpo_loss(padded, ADVANTAGES, MASK, reference=other, old_logprobs=padded - 3 * ~MASK)
    expected = grpo_loss(LOGPROBS, ADVANTAGES, MASK, reference=REFERENCE)
    for name in ("loss", "kl", "clip_fraction"):
        assert getattr(result, name).item() == pytest.approx(getattr(expected, name).item())


def test_gradient_without_old_logprobs():
    # The ratio is 1 and only its gradient counts: d loss / d lp = (-A + beta (1 - exp(ref - lp))) / (len n).
    # beta = 1/2, n = 2. Long, A = 1: -1 - 1/2, -1 + 0, -1 + 1/4 over 6. Short, A = -2: 2 - 1/2 over 2.
    logprobs = LOGPROBS.clone().requires_grad_()
    grpo_loss(logprobs, ADVANTAGES, MASK, reference=REFERENCE, kl_weight=0.5).loss.backward()
    assert logprobs.grad[0, 0].tolist() == pytest.approx([-1.5 / 6, -1 / 6, -0.75 / 6])
    assert logprobs.grad[0, 1].tolist() == pytest.approx([0.75, 0.0, 0.0])


def test_gradient_is_that_of_finite_differences():
    def loss(logprobs: torch.Tensor) -> torch.Tensor:
        return grpo_loss(
            logprobs, ADVANTAGES, MASK, reference=REFERENCE, old_logprobs=LOGPROBS, kl_weight=0.5
        ).loss

    logprobs = LOGPROBS.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (logprobs,))
    # With the current log-probs as old ones, that is the gradient of one update per rollout.
    loss(logprobs).backward()
    alone = LOGPROBS.clone().requires_grad_()
    grpo_loss(alone, ADVANTAGES, MASK, reference=REFERENCE, kl_weight=0.5).loss.backward()
    assert torch.equal(logprobs.grad, alone.grad)


def test_clip_holds_back_what_already_went_far_enough():
    ratios = torch.tensor([[[1.5, 0.5, 1.1], [1.5, 0.5, 1.1]]], dtype=torch.float64)
    logprobs = torch.full_like(ratios, -1.0).requires_grad_()
    old = -1.0 - ratios.log()
    mask = torch.ones_like(ratios, dtype=torch.bool)
    result = grpo_loss(
        logprobs, torch.tensor([[1.0, -1.0]], dtype=torch.float64), mask, old_logprobs=old, clip_range=0.2
    )
    # A = 1: min(1.5, 1.2) + min(0.5, 0.8) + 1.1 = 2.8.
    # A = -1: min(-1.5, -1.2) + min(-0.5, -0.8) - 1.1 = -3.4.
    assert result.loss.item() == pytest.approx((-2.8 / 3 + 3.4 / 3) / 2)
    assert result.clip_fraction.item() == pytest.approx(2 / 6)  # 1.5 with A = 1, 0.5 with A = -1
    # The gradient is -ratio A / (3 * 2), and 0 where the clipped term is the smaller one.
    result.loss.backward()
    assert logprobs.grad[0, 0].tolist() == pytest.approx([0.0, -0.5 / 6, -1.1 / 6])
    assert logprobs.grad[0, 1].tolist() == pytest.approx([1.5 / 6, 0.0, 1.1 / 6])


def test_a_step_along_the_gradient_favours_the_better_completion():
    logprobs = torch.full((1, 2, 2), -1.0, requires_grad=True)
    grpo_loss(logprobs, torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, 2, dtype=torch.bool)).loss.backward()
    assert (-logprobs.grad[0, 0] > 0).all()
    assert (-logprobs.grad[0, 1] < 0).all()


def test_what_is_logged_has_no_graph():
    result = grpo_loss(LOGPROBS.clone().requires_grad_(), ADVANTAGES, MASK, reference=REFERENCE)
    assert result.loss.requires_grad
    assert not result.kl.requires_grad
    assert not result.clip_fraction.requires_grad


def test_masked_mean_by_hand():
    # (1 + 2 + 6) / 3; the 100 is masked.
    values = torch.tensor([[1.0, 2.0], [100.0, 6.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, True]])).item() == 3.0
