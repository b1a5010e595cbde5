"""The policy's loss, against numbers worked out by hand and the papers' formulas as plain loops."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcr1.errors import UserError
from vcr1.objectives import (
    Objective,
    PolicyLoss,
    importance_ratio,
    masked_mean,
    policy_loss,
    sampler_correction,
    weighted_sum,
)

torch.set_num_threads(1)

LN2 = math.log(2)

# One prompt, a completion of three tokens and one of a single token.
MASK = torch.tensor([[[True, True, True], [True, False, False]]])
LOGPROBS = torch.tensor([[[-1.0, -2.0, -3.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
# ref - lp is ln 2, 0, -ln 2 and ln 2, so exp(ref - lp) is 2, 1, 1/2 and 2.
REFERENCE = LOGPROBS + torch.tensor([[[LN2, 0.0, -LN2], [LN2, 0.0, 0.0]]], dtype=torch.float64)


def grpo_loss(
    logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    kl_weight: float = 0.04,
    **more: torch.Tensor,
) -> PolicyLoss:
    return policy_loss(logprobs, advantages, mask, Objective(kl_weight=kl_weight), **more)


# -------------------------------------------------------------------------------------------------- GRPO


def test_loss_without_a_reference():
    # The ratio is 1, so a token costs -A: the completions cost -1 and 2, their mean is 1/2.
    result = grpo_loss(LOGPROBS, ADVANTAGES, MASK)
    assert result.loss.item() == pytest.approx(0.5)
    assert (result.kl.item(), result.clip_fraction_low.item(), result.clip_fraction_high.item()) == (0, 0, 0)


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
    for name in ("loss", "kl", "clip_fraction_low", "clip_fraction_high", "ratio_max"):
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
    result = grpo_loss(logprobs, torch.tensor([[1.0, -1.0]], dtype=torch.float64), mask, old_logprobs=old)
    # A = 1: min(1.5, 1.2) + min(0.5, 0.8) + 1.1 = 2.8.
    # A = -1: min(-1.5, -1.2) + min(-0.5, -0.8) - 1.1 = -3.4.
    assert result.loss.item() == pytest.approx((-2.8 / 3 + 3.4 / 3) / 2)
    assert result.clip_fraction_high.item() == pytest.approx(1 / 6)  # 1.5 with A = 1
    assert result.clip_fraction_low.item() == pytest.approx(1 / 6)  # 0.5 with A = -1
    assert result.ratio_max.item() == pytest.approx(1.5)
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
    for name in ("kl", "clip_fraction_low", "clip_fraction_high", "ratio_max"):
        assert not getattr(result, name).requires_grad


def test_masked_mean_by_hand():
    # (1 + 2 + 6) / 3; the 100 is masked.
    values = torch.tensor([[1.0, 2.0], [100.0, 6.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, True]])).item() == 3.0


# ------------------------------------------------------------------------------- the same as it always was


def loss_of_the_first_release(
    logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    reference: torch.Tensor | None,
    old_logprobs: torch.Tensor | None,
    kl_weight: float,
) -> torch.Tensor:
    """GRPO's loss as it stood before it became one objective of many."""
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = torch.exp(logprobs - old)
    clipped = ratio.clamp(1 - 0.2, 1 + 0.2)
    gain = torch.minimum(ratio * advantages[..., None], clipped * advantages[..., None])
    difference = torch.zeros_like(logprobs) if reference is None else reference - logprobs
    kl = difference.exp() - difference - 1
    per_token = kl_weight * kl - gain
    weight = mask.to(logprobs.dtype)
    return ((per_token * weight).sum(-1) / weight.sum(-1)).mean()


@pytest.mark.parametrize(("with_reference", "with_old"), [*product([True, False], repeat=2)])
def test_grpo_is_bit_for_bit_what_it_was(with_reference: bool, with_old: bool):
    generator = torch.Generator().manual_seed(3)
    logprobs, reference, old = (-torch.rand(3, 4, 9, generator=generator) * 3 for _ in range(3))
    advantages = torch.randn(3, 4, generator=generator)
    mask = torch.arange(9) < torch.randint(1, 10, (3, 4, 1), generator=generator)
    others = (reference if with_reference else None, old if with_old else None)
    one, other = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    before = loss_of_the_first_release(one, advantages, mask, *others, 0.04)
    now = policy_loss(other, advantages, mask, reference=others[0], old_logprobs=others[1]).loss
    assert torch.equal(before, now)
    before.backward()
    now.backward()
    assert torch.equal(one.grad, other.grad)


# ------------------------------------------------------------------------------------------ the relatives

# Ratios of 2, 1/2, 1 and 1.25; 4 with one token.
RATIOS = torch.tensor([[[2.0, 0.5, 1.0, 1.25], [4.0, 1.0, 1.0, 1.0]]], dtype=torch.float64)
LENGTHS = torch.tensor([[[True] * 4, [True, False, False, False]]])
NOW = torch.tensor([[[-1.0, -2.0, -0.5, -1.5], [-3.0, -9.0, -9.0, -9.0]]], dtype=torch.float64)
OLD = NOW - RATIOS.log()


def test_clip_higher_lets_unlikely_tokens_rise_further():
    # A = 1: 1.28, 0.5, 1, 1.25, of which 1.28 is held back; A = -1: 4, never held back from above.
    objective = Objective(clip_low=0.2, clip_high=0.28, kl_weight=0)
    found = policy_loss(NOW, torch.tensor([[1.0, -1.0]]), LENGTHS, objective, old_logprobs=OLD)
    assert found.loss.item() == pytest.approx((-(1.28 + 0.5 + 1 + 1.25) / 4 + 4) / 2)
    assert (found.clip_fraction_low.item(), found.clip_fraction_high.item()) == (0, pytest.approx(1 / 5))
    # A = -1: 2, 0.8 for 0.5, 1, 1.25.
    found = policy_loss(NOW, torch.tensor([[-1.0, 1.0]]), LENGTHS, objective, old_logprobs=OLD)
    assert found.loss.item() == pytest.approx(((2 + 0.8 + 1 + 1.25) / 4 - 1.28) / 2)
    assert found.clip_fraction_low.item() == found.clip_fraction_high.item() == pytest.approx(1 / 5)


def test_the_ratio_of_a_sequence_is_the_geometric_mean():
    # (2 * 1/2 * 1 * 5/4)^(1/4); padding does not count, whatever stands there.
    found = importance_ratio(NOW, OLD - 3 * ~LENGTHS, LENGTHS, "sequence")
    assert found[0, 0].tolist() == pytest.approx([1.25**0.25] * 4)
    assert found[0, 1].tolist() == pytest.approx([4.0] * 4)
    assert torch.allclose(importance_ratio(NOW, OLD, LENGTHS), RATIOS)


def test_gspo_keeps_or_drops_completions_as_a_whole():
    # s = 1.25^(1/4) = 1.0573713 lies above 1 + 0.04 and s = 4 as well: A = 1 is held back, A = -1 is not.
    objective = Objective(ratio="sequence", clip_low=0.03, clip_high=0.04, kl_weight=0)
    logprobs = NOW.clone().requires_grad_()
    found = policy_loss(logprobs, torch.tensor([[1.0, -1.0]]), LENGTHS, objective, old_logprobs=OLD)
    assert found.loss.item() == pytest.approx((-1.04 + 4) / 2)
    assert found.clip_fraction_high.item() == pytest.approx(4 / 5)  # all tokens of the first
    found.loss.backward()
    assert logprobs.grad[0, 0].tolist() == [0, 0, 0, 0]
    assert logprobs.grad[0, 1].tolist() == pytest.approx([4 / 2, 0, 0, 0])
    # The other way round: d/d lp = -s A / (len n) at each token of the completion.
    logprobs.grad = None
    advantages = torch.tensor([[-1.0, 1.0]])
    policy_loss(logprobs, advantages, LENGTHS, objective, old_logprobs=OLD).loss.backward()
    assert logprobs.grad[0, 0].tolist() == pytest.approx([1.25**0.25 / 8] * 4)
    assert logprobs.grad[0, 1].tolist() == [0, 0, 0, 0]


def test_cispo_clips_weights_and_no_gradient():
    # Weights 1.5 for 2, 0.5, 1, 1.25 and 1.5 for 4; mean over five tokens of -weight A lp.
    objective = Objective(surrogate="reweight", clip_low=1, clip_high=0.5, average="token", kl_weight=0)
    logprobs = NOW.clone().requires_grad_()
    found = policy_loss(logprobs, torch.tensor([[1.0, -2.0]]), LENGTHS, objective, old_logprobs=OLD)
    gains = 1.5 * -1 + 0.5 * -2 + 1 * -0.5 + 1.25 * -1.5, -2 * 1.5 * -3
    assert found.loss.item() == pytest.approx(-sum(gains) / 5)
    assert (found.clip_fraction_low.item(), found.clip_fraction_high.item()) == (0, pytest.approx(2 / 5))
    found.loss.backward()
    assert logprobs.grad[0, 0].tolist() == pytest.approx([-0.3, -0.1, -0.2, -0.25])
    assert logprobs.grad[0, 1].tolist() == pytest.approx([0.6, 0, 0, 0])


def mean(values: torch.Tensor, weight: torch.Tensor, how: str) -> float:
    total, count = weighted_sum(values, weight, how, max_tokens=8)
    return (total / count.clamp(min=1)).item()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("completion", ((1 + 2 + 3) / 3 + 10) / 2),
        ("token", 16 / 4),
        ("length", (6 / 8 + 10 / 8) / 2),  # a limit of 8 tokens
        ("sum", (6 + 10) / 2),
    ],
)
def test_averages_by_hand(how: str, expected: float):
    values = torch.tensor([[[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]]])
    assert mean(values, MASK.float(), how) == pytest.approx(expected)
    # A group that is left out changes nothing; and without any, nothing is left.
    more = torch.cat([values, values + 5])
    mask = torch.cat([MASK, torch.zeros_like(MASK)]).float()
    assert mean(more, mask, how) == pytest.approx(expected)
    assert mean(values, torch.zeros(1, 2, 3), how) == 0


def test_a_kl_in_the_reward_is_no_part_of_the_loss():
    objective = Objective(kl="k1", kl_place="reward", kl_weight=0.5)
    found = policy_loss(LOGPROBS, ADVANTAGES, MASK, objective, reference=REFERENCE)
    assert found.loss.item() == pytest.approx(0.5)
    assert found.kl.item() == pytest.approx(-LN2 / 4)  # logged all the same


def test_the_gradient_of_rloo_is_that_of_reinforce():
    # d loss / d lp = -A / n at every token: no length divides.
    logprobs = LOGPROBS.clone().requires_grad_()
    policy_loss(logprobs, ADVANTAGES, MASK, Objective(average="sum", kl_weight=0)).loss.backward()
    assert logprobs.grad[0].tolist() == [[-0.5, -0.5, -0.5], [1.0, 0.0, 0.0]]


def plain(
    now: torch.Tensor,
    old: torch.Tensor,
    ref: torch.Tensor,
    scale: torch.Tensor,
    mask: torch.Tensor,
    o: Objective,
) -> float:
    """The papers' formulas as loops over numbers; none of the package's code."""
    completions, tokens = [], []
    for group in range(now.shape[0]):
        for member in range(now.shape[1]):
            kept = [place for place in range(now.shape[2]) if mask[group, member, place]]
            lp, before, other = ([t[group, member, p].item() for p in kept] for t in (now, old, ref))
            a, costs = scale[group, member].item(), []
            whole = math.exp(sum(x - y for x, y in zip(lp, before, strict=True)) / len(kept))
            for x, y, r in zip(lp, before, other, strict=True):
                ratio = whole if o.ratio == "sequence" else math.exp(x - y)
                cut = min(max(ratio, 1 - o.clip_low), 1 + o.clip_high)
                gain = min(ratio * a, cut * a) if o.surrogate == "clip" else cut * a * x
                kl = {"k1": x - r, "k2": (x - r) ** 2 / 2, "k3": math.exp(r - x) - (r - x) - 1}[o.kl]
                costs.append(o.kl_weight * kl * (o.kl_place == "loss") - gain)
            tokens += costs
            by = {"completion": len(costs), "length": 16, "sum": 1, "token": 1}[o.average]
            completions.append(sum(costs) / by)
    values = tokens if o.average == "token" else completions
    return sum(values) / len(values)


FAMILY = {
    "grpo": Objective(),
    "dr_grpo": Objective(advantage="centred", average="length", kl_weight=0),
    "dapo": Objective(clip_high=0.28, average="token", kl_weight=0),
    "gspo": Objective(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": Objective(surrogate="reweight", clip_low=1, clip_high=4, average="token", kl_weight=0),
    "rloo": Objective(advantage="leave_one_out", average="sum", kl="k1", kl_place="reward"),
    "reinforce_pp": Objective(advantage="batch", kl="k1", kl_place="reward"),
    "reinforce_pp_baseline": Objective(advantage="centred_batch", kl="k2"),
}


@pytest.mark.parametrize("name", FAMILY)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_losses_are_the_formulas_of_their_papers(name: str, seed: int):
    generator = torch.Generator().manual_seed(seed)
    now, old, ref = (-torch.rand(2, 3, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    scale = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    mask = torch.arange(6) < torch.randint(1, 7, (2, 3, 1), generator=generator)
    objective = FAMILY[name]
    found = policy_loss(now, scale, mask, objective, reference=ref, old_logprobs=old, max_tokens=16)
    assert found.loss.item() == pytest.approx(plain(now, old, ref, scale, mask, objective))


def test_a_correction_weighs_tokens_by_hand() -> None:
    # p / q: 1/2, 3 and 1.5 in the first completion, 0.25 in the second; its padding says nothing.
    sampled = torch.tensor([[[0.8, 0.2, 0.4], [0.8, 0.9, 0.9]]]).log()
    logprobs = torch.tensor([[[0.4, 0.6, 0.6], [0.2, 0.1, 0.1]]]).log()
    mask = torch.tensor([[[True, True, True], [True, False, False]]])

    def weights(**settings: Any) -> list[list[float]] | None:
        found = sampler_correction(logprobs, sampled, mask, Objective(**settings))
        return None if found is None else [[round(w, 4) for w in row] for row in found[0].tolist()]

    assert weights() is None
    assert weights(correction="token") == [[0.5, 2.0, 1.5], [0.25, 1.0, 1.0]]
    assert weights(correction="token", correction_high=5.0) == [[0.5, 3.0, 1.5], [0.25, 1.0, 1.0]]
    # 0.5 · 3 · 1.5 = 2.25, cut at 2.
    assert weights(correction="sequence") == [[2.0] * 3, [0.25] * 3]
    assert weights(correction="mask") == [[0.5, 0.0, 1.5], [0.0, 1.0, 1.0]]
    for wrong in ({"correction_low": 1.0}, {"correction_high": 1.0}, {"correction_high": math.inf}):
        with pytest.raises(UserError, match=r"algorithm\.objective\.correction_low=.* has to lie between"):
            Objective(**wrong)
    with pytest.raises(UserError, match=r"correction=all; choose from null, token, sequence, mask"):
        Objective(correction="all")


def test_a_corrected_gain_has_a_gradient_of_that_weight_and_the_kl_term_its_own() -> None:
    logprobs = torch.tensor([[[-1.0, -2.0], [-0.5, -0.7]]], requires_grad=True)
    advantages, mask = torch.tensor([[1.0, -2.0]]), torch.ones(1, 2, 2, dtype=torch.bool)
    weights = torch.tensor([[[0.5, 2.0], [0.0, 1.0]]])
    found = policy_loss(logprobs, advantages, mask, Objective(kl_weight=0.0), correction=weights)
    (slope,) = torch.autograd.grad(found.loss, logprobs)
    # Two completions of two tokens: -weight · advantage / 4.
    assert slope.tolist() == [[[-0.125, -0.5], [0.0, 0.5]]]
    reference = logprobs.detach() + 0.3
    plain, corrected = (
        policy_loss(logprobs, 0 * advantages, mask, Objective(), reference=reference, correction=weight)
        for weight in (None, weights)
    )
    assert plain.loss.item() == corrected.loss.item() > 0
