"""KL estimators and penalties, against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcr1.objectives import KL_ESTIMATORS, k1, k2, k3, kl_penalty, overlong_penalty

torch.set_num_threads(1)

LN2 = math.log(2)

MASK = torch.tensor([[[True, True, True], [True, False, False]]])
LOGPROBS = torch.tensor([[[-1.0, -2.0, -3.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
# ref - lp is ln 2, 0, -ln 2 and ln 2, so exp(ref - lp) is 2, 1, 1/2 and 2.
REFERENCE = LOGPROBS + torch.tensor([[[LN2, 0.0, -LN2], [LN2, 0.0, 0.0]]], dtype=torch.float64)

log_ratios = st.floats(-20, 20)


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


def test_k1_and_k2_by_hand():
    # lp - ref is -ln 2, 0, ln 2.
    assert k1(LOGPROBS, REFERENCE)[0, 0].tolist() == pytest.approx([-LN2, 0.0, LN2])
    assert k2(LOGPROBS, REFERENCE)[0, 0].tolist() == pytest.approx([LN2**2 / 2, 0.0, LN2**2 / 2])


# Two tokens: the policy by its logits, the reference 1/4 and 3/4.
LOGITS = torch.tensor([0.3, -0.4], dtype=torch.float64)
OTHER = torch.tensor([0.25, 0.75], dtype=torch.float64)


def divergence_gradient(forward: bool) -> torch.Tensor:
    """The exact gradient by the logits of KL(policy || reference), or of KL(reference || policy)."""
    logits = LOGITS.clone().requires_grad_()
    policy = logits.softmax(0)
    value = (policy * (policy / OTHER).log()).sum() if forward else (OTHER * (OTHER / policy).log()).sum()
    return torch.autograd.grad(value, logits)[0]


def loss_gradient(name: str) -> torch.Tensor:
    """The mean under the policy of an estimator's gradient, as a loss has it."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    mean = (logprobs.detach().exp() * KL_ESTIMATORS[name](logprobs, OTHER.log())).sum()
    return torch.autograd.grad(mean, logits)[0]


def reward_gradient(name: str) -> torch.Tensor:
    """The mean under the policy of the estimate times the log-prob's gradient, as a reward has it."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    estimate = KL_ESTIMATORS[name](logprobs.detach(), OTHER.log())
    return torch.autograd.grad((logprobs.detach().exp() * estimate * logprobs).sum(), logits)[0]


def test_what_estimators_pull_towards_in_a_loss():
    assert loss_gradient("k1").abs().max() < 1e-12  # nothing at all
    assert torch.allclose(loss_gradient("k2"), divergence_gradient(forward=True))
    assert torch.allclose(loss_gradient("k3"), divergence_gradient(forward=False))
    assert not torch.allclose(divergence_gradient(True), divergence_gradient(False), rtol=1e-2)


def test_what_estimators_pull_towards_in_a_reward():
    assert torch.allclose(reward_gradient("k1"), divergence_gradient(forward=True))
    for name in ("k2", "k3"):
        assert not torch.allclose(reward_gradient(name), divergence_gradient(forward=True), rtol=1e-2)


def test_the_kl_of_a_reward_is_a_sum_over_tokens_without_a_gradient():
    logprobs = LOGPROBS.clone().requires_grad_()
    found = kl_penalty(logprobs, REFERENCE.masked_fill(~MASK, 7.0), MASK)
    assert not found.requires_grad
    assert found.flatten().tolist() == pytest.approx([0.0, -LN2])  # -ln 2 + 0 + ln 2; -ln 2
    assert kl_penalty(LOGPROBS, REFERENCE, MASK, "k3").flatten().tolist() == pytest.approx([0.5, 1 - LN2])


# ------------------------------------------------------------------------------------------- long answers


def test_long_completions_are_punished_little_by_little():
    # At most 100 tokens, the last 20 of which cost a twentieth each: none up to 80, half at 90, all at 100.
    found = overlong_penalty(torch.tensor([[1, 80, 81], [90, 99, 100]]), limit=100, buffer=20)
    assert found.flatten().tolist() == pytest.approx([0.0, 0.0, -0.05, -0.5, -0.95, -1.0])


def test_without_a_buffer_no_completion_is_too_long():
    found = overlong_penalty(torch.tensor([1, 100]), limit=100, buffer=0)
    assert (found.tolist(), found.dtype) == ([0.0, 0.0], torch.float32)


@given(length=st.integers(1, 300), limit=st.integers(1, 200), share=st.floats(0.01, 1))
def test_the_penalty_is_equation_13_of_dapo(length: int, limit: int, share: float):
    buffer = max(1, round(share * limit))
    if length <= limit - buffer:
        expected = 0.0
    elif length <= limit:
        expected = ((limit - buffer) - length) / buffer
    else:
        expected = -1.0
    found = overlong_penalty(torch.tensor(length), limit, buffer).item()
    assert found == pytest.approx(expected, abs=1e-6)
