"""How good a completion was, by its reward and those of the others.

In all of them a reward that is NaN, where a judge failed, counts in no mean and no deviation, and its
completion has advantage 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Return how much better a completion is than its group, in standard deviations of the group.

    ``A = (r - mean(r)) / (std(r) + epsilon)`` over the group, with the unbiased standard deviation.
    Source: DeepSeekMath, arXiv 2402.03300, section 4.1; epsilon as in VideoChat-R1, arXiv 2504.06958.

    Args:
        rewards: ``[P, G]`` total rewards, NaN where a judge failed.
        epsilon: keeps the quotient finite; a group of equal rewards has advantage 0.

    Returns:
        ``[P, G]`` advantages.

    Raises:
        ValueError: a group of one, which has no spread.
    """
    return centred_advantages(rewards) / (group_deviations(rewards)[..., None] + epsilon)


def centred_advantages(rewards: Tensor) -> Tensor:
    """Return how much better a completion is than its group, in the reward's own unit: ``A = r - mean(r)``.

    Without the deviation, groups that are too easy or too hard weigh no more than others.
    Source: Dr. GRPO, arXiv 2503.20783, section 3.2.

    Args:
        rewards: ``[P, G]``, NaN where a judge failed.

    Returns:
        ``[P, G]``.

    Raises:
        ValueError: a group of one.
    """
    if rewards.shape[-1] < 2:
        raise ValueError(f"a group needs at least 2 completions, got {rewards.shape[-1]}")
    return _centred(rewards)


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Return how much better a completion is than the mean of the others of its group.

    ``A_i = r_i - sum(r_j, j != i) / (n - 1) = (r_i - mean(r)) n / (n - 1)``, n completions with a reward.
    Source: RLOO, arXiv 2402.14740, section 3.3 ("REINFORCE leave-one-out").

    Args:
        rewards: ``[P, G]``, NaN where a judge failed.

    Returns:
        ``[P, G]``; 0 where a completion is the only one with a reward.

    Raises:
        ValueError: a group of one.
    """
    judged = (~rewards.isnan()).sum(-1, keepdim=True)
    return centred_advantages(rewards) * judged / (judged - 1).clamp(min=1)


def reward_moments(rewards: Tensor) -> Tensor:
    """Return ``[3]`` float64 number, sum and sum of squares of rewards of any shape, NaN left out.

    What ranks add up to have the mean and the deviation of all their rewards.
    """
    values = rewards.double().nan_to_num(0.0)
    return torch.stack([(~rewards.isnan()).sum().double(), values.sum(), values.square().sum()])


def batch_advantages(rewards: Tensor, moments: Tensor | None = None, epsilon: float = 1e-4) -> Tensor:
    """Return how much better a completion is than the batch, in standard deviations of the batch.

    ``A = (r - mean(batch)) / (std(batch) + epsilon)``, with the unbiased standard deviation.
    Source: REINFORCE++, arXiv 2501.03262, "global advantage normalization". With ``centred_advantages`` in
    the place of the rewards, its variant "with baseline". The batch is that of an update: all of its
    micro-batches on all ranks.

    Args:
        rewards: ``[P, G]``, NaN where a judge failed.
        moments: ``[3]`` of the batch, from :func:`reward_moments`; None where ``rewards`` is all of it.
        epsilon: keeps the quotient finite.

    Returns:
        ``[P, G]``; 0 where fewer than two completions of the batch have a reward.
    """
    count, total, squares = (reward_moments(rewards) if moments is None else moments).to(rewards.device)
    mean = total / count.clamp(min=1)
    # Rounding may leave a square just below zero where all rewards are equal.
    variance = (squares - count * mean.square()).clamp(min=0) / (count - 1).clamp(min=1)
    advantages = (rewards - mean) / (variance.sqrt() + epsilon)
    return advantages.nan_to_num(0.0).to(rewards.dtype)


def estimate_advantages(
    name: str, rewards: Tensor, over_ranks: Callable[[Tensor], Tensor] = lambda moments: moments
) -> Tensor:
    """Return advantages by the estimator of a config.

    Args:
        name: one of ``ADVANTAGES``.
        rewards: ``[P, G]``, NaN where a judge failed; P may be 0.
        over_ranks: adds a tensor up over the ranks. Called once where the batch is normalised and else not at
            all, whatever the rewards: so every rank has to call this as often as the others.

    Returns:
        ``[P, G]``.
    """
    if name in GROUP_ADVANTAGES:
        return GROUP_ADVANTAGES[name](rewards)
    if name == "centred_batch":
        rewards = centred_advantages(rewards).masked_fill(rewards.isnan(), torch.nan)
    return batch_advantages(rewards, over_ranks(reward_moments(rewards)))


GROUP_ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "group": group_advantages,
    "centred": centred_advantages,
    "leave_one_out": leave_one_out_advantages,
}
"""Name in a config -> estimator that looks at each group by itself."""

BATCH_ADVANTAGES = ("batch", "centred_batch")
"""Names in a config of the estimators that look at all rewards of an update."""

ADVANTAGES = (*GROUP_ADVANTAGES, *BATCH_ADVANTAGES)
"""Names in a config of all estimators."""


def _centred(rewards: Tensor) -> Tensor:
    """Return rewards less the mean of their group, 0 where there is none."""
    return (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0)


def group_deviations(rewards: Tensor) -> Tensor:
    """Return ``[P]`` unbiased standard deviation of each group's rewards ``[P, G]``, NaN left out."""
    return (_centred(rewards).square().sum(-1) / ((~rewards.isnan()).sum(-1) - 1).clamp(min=1)).sqrt()


def zero_variance(rewards: Tensor) -> Tensor:
    """``[P]`` True where all rewards ``[P, G]`` of a group are equal, NaN left out: it teaches nothing."""
    centred = _centred(rewards)
    return centred.amax(-1) - centred.amin(-1) < 1e-6
