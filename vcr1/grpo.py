"""Group relative policy optimisation: advantages and the loss, as formulas over tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """How much better a completion is than its group, in standard deviations of the group.

    ``A = (r - mean(r)) / (std(r) + epsilon)`` over the group, with the unbiased standard deviation.
    Source: DeepSeekMath, arXiv 2402.03300, section 4.1; epsilon as in VideoChat-R1, arXiv 2504.06958.

    Args:
        rewards: ``[P, G]`` total rewards; NaN where a judge failed. Such a completion counts neither in the
            mean nor in the deviation, and has advantage 0.
        epsilon: keeps the quotient finite; a group of equal rewards has advantage 0.

    Returns:
        ``[P, G]`` advantages.

    Raises:
        ValueError: a group of one, which has no spread.
    """
    if rewards.shape[-1] < 2:
        raise ValueError(f"a group needs at least 2 completions, got {rewards.shape[-1]}")
    centred = (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0)
    return centred / (group_deviations(rewards)[..., None] + epsilon)


def group_deviations(rewards: Tensor) -> Tensor:
    """``[P]`` unbiased standard deviation of each group's rewards ``[P, G]``, NaN left out."""
    squares = (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0).square()
    return (squares.sum(-1) / ((~rewards.isnan()).sum(-1) - 1).clamp(min=1)).sqrt()


def zero_variance(rewards: Tensor) -> Tensor:
    """``[P]`` True where all rewards ``[P, G]`` of a group are equal, NaN left out: it teaches nothing."""
    centred = (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0)
    return centred.amax(-1) - centred.amin(-1) < 1e-6


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(policy || reference) per token.

    ``exp(ref - lp) - (ref - lp) - 1``. Source: Schulman, "Approximating KL Divergence" (2020).

    Args:
        logprobs: of the sampled tokens under the policy, any shape.
        reference: of the same tokens under the reference.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1


@dataclass(frozen=True, slots=True)
class GRPOLoss:
    """The loss (a scalar with a graph) and what is worth logging of it (without)."""

    loss: Tensor
    kl: Tensor
    clip_fraction: Tensor


def grpo_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    reference: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    kl_weight: float = 0.04,
    clip_range: float = 0.2,
) -> GRPOLoss:
    """Clipped policy gradient with a KL penalty, averaged over tokens, then over completions.

    Per token ``-(min(ratio * A, clip(ratio) * A) - beta * KL)``; ``ratio = exp(lp - old)``.
    With one update per rollout the old log-probs are the current ones without their gradient: the ratio
    is 1 and only its gradient counts. Source: arXiv 2402.03300, equation 3, as used by arXiv 2504.06958.

    Args:
        logprobs: ``[P, G, C]`` under the policy.
        advantages: ``[P, G]``.
        mask: ``[P, G, C]`` True at completion tokens; every completion has at least one.
        reference: ``[P, G, C]`` log-probs under the reference; None leaves the KL term out.
        old_logprobs: ``[P, G, C]`` under the policy that sampled; None for one update per rollout.
        kl_weight: beta.
        clip_range: epsilon of the ratio's clip range.
    """
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = torch.exp(logprobs - old)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    gain = torch.minimum(ratio * advantages[..., None], clipped * advantages[..., None])
    kl = torch.zeros_like(logprobs) if reference is None else k3(logprobs, reference)
    per_token = kl_weight * kl - gain
    weight = mask.to(logprobs.dtype)
    loss = ((per_token * weight).sum(-1) / weight.sum(-1)).mean()
    with torch.no_grad():
        # Where the clipped term is the smaller one, and so takes the gradient away.
        clip_fraction = (clipped * advantages[..., None] < ratio * advantages[..., None]).to(weight.dtype)
        return GRPOLoss(loss, masked_mean(kl, weight), masked_mean(clip_fraction, weight))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is set, a scalar."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum()
