"""The policy's loss: ratio, clip, mean, and the KL penalty where it stands in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vcr1.objectives.objective import Objective
from vcr1.objectives.penalties import KL_ESTIMATORS


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss (a scalar with a graph) and what is worth logging of it (scalars without).

    Attributes:
        loss: mean over the micro-batch, as ``average`` has it.
        weight: what that mean divides by: completions or tokens that count. An update's loss is the sum of
            its micro-batches' ``loss * weight``, divided by the sum of the weights.
        kl: mean over tokens of the KL estimate.
        clip_fraction_low: share of the tokens whose ratio the lower bound holds back.
        clip_fraction_high: share of the tokens whose ratio the upper bound holds back.
        ratio_max: largest importance ratio.
    """

    loss: Tensor
    weight: Tensor
    kl: Tensor
    clip_fraction_low: Tensor
    clip_fraction_high: Tensor
    ratio_max: Tensor


def policy_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    objective: Objective | None = None,
    *,
    reference: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    correction: Tensor | None = None,
    max_tokens: int = 1,
) -> PolicyLoss:
    """Return the policy gradient's loss over a micro-batch.

    Per token ``-(surrogate - beta * KL)``. ``clip``: ``min(ratio * A, clip(ratio) * A)``, arXiv 2402.03300,
    equation 3, with bounds of their own below and above as in DAPO, arXiv 2503.14476, section 3.1.
    With a ``delta``, the ratio itself is at most that: a token of a bad completion that has become far more
    likely has a bounded loss ("two-sided clipping", INTELLECT-2, arXiv 2505.07291, section 3.4).
    ``reweight``: ``stop_gradient(clip(ratio)) * A * lp``, CISPO, arXiv 2506.13585, section 3.1.
    With one update per rollout the old log-probs are the current ones without their gradient: the ratio is
    1 and only its gradient counts.

    Args:
        logprobs: ``[P, G, C]`` under the policy.
        advantages: ``[P, G]``.
        mask: ``[P, G, C]`` True at the tokens that count; a completion without any is left out.
        objective: which formulas; GRPO's where None.
        reference: ``[P, G, C]`` log-probs under the reference; None leaves the KL term out.
        old_logprobs: ``[P, G, C]`` under the policy that sampled; None for one update per rollout.
        correction: ``[P, G, C]`` weights of the tokens' gains, see :func:`sampler_correction`; None is 1
            for all.
        max_tokens: the length limit, the unit of ``average=length``.
    """
    chosen = objective or Objective()
    weight = mask.to(logprobs.dtype)
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = importance_ratio(logprobs, old, mask, chosen.ratio)
    clipped = ratio.clamp(1 - chosen.clip_low, 1 + chosen.clip_high)
    scale = advantages[..., None]
    if chosen.surrogate == "clip":
        bounded = ratio if chosen.delta is None else ratio.clamp(max=chosen.delta)
        gain = torch.minimum(bounded * scale, clipped * scale)
        # Where the smaller term is a cut ratio, the token has no gradient.
        held = (clipped * scale < bounded * scale) | ((bounded != ratio) & (scale < 0))
    else:
        gain = clipped.detach() * scale * logprobs
        held = clipped != ratio
    if correction is not None:
        gain = gain * correction
    kl = torch.zeros_like(logprobs) if reference is None else KL_ESTIMATORS[chosen.kl](logprobs, reference)
    per_token = chosen.kl_weight * kl - gain if chosen.kl_place == "loss" else -gain
    total, count = weighted_sum(per_token, weight, chosen.average, max_tokens)
    loss = total / count.clamp(min=1)
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            weight=count,
            kl=masked_mean(kl.detach(), weight),
            clip_fraction_low=masked_mean((held & (ratio < 1)).to(weight.dtype), weight),
            clip_fraction_high=masked_mean((held & (ratio > 1)).to(weight.dtype), weight),
            ratio_max=ratio.detach().masked_fill(~mask, 0.0).max(),
        )


def importance_ratio(logprobs: Tensor, old: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """Return how much likelier than under the old policy a token is, or all tokens of its completion are.

    ``token``: ``exp(lp - old)``. ``sequence``: ``exp(mean(lp - old))`` over the completion's tokens, the
    geometric mean of their ratios; GSPO, arXiv 2507.18071, equation 7.

    Args:
        logprobs: ``[P, G, C]`` under the policy.
        old: ``[P, G, C]`` under the policy that sampled, without a graph.
        mask: ``[P, G, C]`` True at the tokens that count.
        level: ``token`` or ``sequence``.

    Returns:
        ``[P, G, C]``; of a sequence, the same at each of its tokens.
    """
    difference = logprobs - old
    if level == "sequence":
        lengths = mask.sum(-1, keepdim=True).clamp(min=1)
        mean = difference.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / lengths
        difference = mean.expand_as(difference)
    return difference.exp()


def sampler_correction(
    logprobs: Tensor, sampled: Tensor, mask: Tensor, objective: Objective
) -> Tensor | None:
    """Return weights of tokens that mend what differs between the engine that sampled and the trainer.

    ``token``: ``min(p / q, high)``; ``sequence``: the same of the product of a completion's ratios. Truncated
    importance sampling, Espeholt et al., arXiv 1802.01561, section 4.1 (``rho``). ``mask``: ``p / q`` within
    ``low`` and ``high``, else 0: IcePop, arXiv 2510.18855, section 3.

    Args:
        logprobs: ``[P, G, C]`` of the trainer's first pass, ``log p``.
        sampled: ``[P, G, C]`` of the engine, ``log q``.
        mask: ``[P, G, C]`` True at tokens.
        objective: names the correction and its bounds.

    Returns:
        ``[P, G, C]`` without a graph; None without a correction.
    """
    if objective.correction is None:
        return None
    difference = (logprobs.detach() - sampled).masked_fill(~mask, 0.0)
    if objective.correction == "sequence":
        difference = difference.sum(-1, keepdim=True).expand_as(difference)
    ratio = difference.exp()
    if objective.correction == "mask":
        inside = (ratio >= objective.correction_low) & (ratio <= objective.correction_high)
        return ratio * inside
    return ratio.clamp(max=objective.correction_high)


def weighted_sum(
    values: Tensor, weight: Tensor, how: str = "completion", max_tokens: int = 1
) -> tuple[Tensor, Tensor]:
    """Add up the values of all tokens; completions without a token that counts are left out.

    The mean of an update is the sum of these sums over its micro-batches and ranks, divided by the sum of the
    counts: so it does not depend on how the update is cut.

    ``completion``: mean over tokens, then over completions (GRPO, arXiv 2402.03300, equation 3).
    ``token``: mean over all tokens (DAPO, arXiv 2503.14476, section 3.3): a long completion weighs more.
    ``length``: sum over tokens, divided by the length limit, then mean over completions: no completion's own
    length divides (Dr. GRPO, arXiv 2503.20783, section 3.2). ``sum``: the same in units of one token, the
    gradient of a completion's whole log-prob (RLOO, arXiv 2402.14740).

    Args:
        values: ``[P, G, C]``.
        weight: ``[P, G, C]`` 1 at the tokens that count, else 0.
        how: see above.
        max_tokens: the length limit.

    Returns:
        The sum, and the count that makes a mean of it: of tokens for ``token``, else of completions.
    """
    lengths, sums = weight.sum(-1), (values * weight).sum(-1)
    if how == "token":
        return sums.sum(), lengths.sum()
    if how == "completion":
        sums = sums / lengths.clamp(min=1)
    elif how == "length":
        sums = sums / max_tokens
    return sums.sum(), (lengths > 0).to(values.dtype).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return mean of the values where the mask is set, a scalar; 0 where it is set nowhere."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)
