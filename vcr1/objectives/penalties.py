"""What holds a policy back: its distance from the reference, and completions near the length limit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return unbiased estimate of KL(policy || reference) per token, of either sign: ``lp - ref``.

    For the reward, where it gives the gradient of the divergence. In a loss its gradient is that of the
    log-prob, whose mean under the policy is 0: noise, no penalty.
    Source: Schulman, "Approximating KL Divergence" (2020).

    Args:
        logprobs: of the sampled tokens under the policy, any shape.
        reference: of the same tokens under the reference.
    """
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return estimate of KL(policy || reference) per token with little variance and some bias.

    ``(lp - ref)^2 / 2``. In a loss, its gradient ``(lp - ref) grad(lp)`` is, in the mean under the policy,
    that of KL(policy || reference). Source: Schulman, as above; REINFORCE++, arXiv 2501.03262.

    Args:
        logprobs: of the sampled tokens under the policy, any shape.
        reference: of the same tokens under the reference.
    """
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return unbiased, non-negative estimate of KL(policy || reference) per token.

    ``exp(ref - lp) - (ref - lp) - 1``. In a loss, as GRPO has it, its gradient
    ``(1 - exp(ref - lp)) grad(lp)`` is, in the mean under the policy, that of the reverse divergence
    KL(reference || policy); near the reference the two agree.
    Source: Schulman, as above; GRPO, arXiv 2402.03300, equation 4.

    Args:
        logprobs: of the sampled tokens under the policy, any shape.
        reference: of the same tokens under the reference.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""Name in a config -> estimator, (log-probs, reference) -> KL per token."""


@torch.no_grad()
def kl_penalty(logprobs: Tensor, reference: Tensor, mask: Tensor, estimator: str = "k1") -> Tensor:
    """Return what a completion's distance from the reference costs it in the reward, per unit of beta.

    The sum over its tokens, without a gradient. Source: RLOO, arXiv 2402.14740, section 2, equation 3.
    REINFORCE++ charges each token with the distance from there on; the whole sum, used here for both,
    has the same gradient in the mean and more variance.

    Args:
        logprobs: ``[P, G, C]`` under the policy that sampled.
        reference: ``[P, G, C]``.
        mask: ``[P, G, C]`` True at completion tokens.
        estimator: one of ``KL_ESTIMATORS``; only k1 gives the gradient of KL(policy || reference) here.

    Returns:
        ``[P, G]``.
    """
    return KL_ESTIMATORS[estimator](logprobs, reference).masked_fill(~mask, 0.0).sum(-1)


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """Return soft punishment of completions that come near the length limit, in -1..0.

    0 up to ``limit - buffer`` tokens, then falling in a line to -1 at the limit; without a buffer always 0.
    Source: DAPO, arXiv 2503.14476, section 3.4, equation 13.

    Args:
        lengths: tokens per completion, any shape.
        limit: the most tokens that a completion may have (L_max).
        buffer: tokens over which the punishment grows (L_cache).

    Returns:
        float32 of the same shape.
    """
    if buffer == 0:
        return torch.zeros_like(lengths, dtype=torch.float32)
    return ((limit - buffer - lengths.float()) / buffer).clamp(-1.0, 0.0)
