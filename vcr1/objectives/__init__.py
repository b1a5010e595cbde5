"""What an algorithm maximises, as formulas over tensors: advantages, penalties, policy losses.

Every algorithm is a choice among these parts, an :class:`Objective`; there is no file per algorithm.
"""

from vcr1.objectives.advantages import (
    ADVANTAGES,
    BATCH_ADVANTAGES,
    batch_advantages,
    centred_advantages,
    estimate_advantages,
    group_advantages,
    group_deviations,
    leave_one_out_advantages,
    reward_moments,
    zero_variance,
)
from vcr1.objectives.loss import (
    PolicyLoss,
    importance_ratio,
    masked_mean,
    policy_loss,
    sampler_correction,
    weighted_sum,
)
from vcr1.objectives.objective import Objective
from vcr1.objectives.penalties import KL_ESTIMATORS, k1, k2, k3, kl_penalty, overlong_penalty

__all__ = [
    "ADVANTAGES",
    "BATCH_ADVANTAGES",
    "KL_ESTIMATORS",
    "Objective",
    "PolicyLoss",
    "batch_advantages",
    "centred_advantages",
    "estimate_advantages",
    "group_advantages",
    "group_deviations",
    "importance_ratio",
    "k1",
    "k2",
    "k3",
    "kl_penalty",
    "leave_one_out_advantages",
    "masked_mean",
    "overlong_penalty",
    "policy_loss",
    "reward_moments",
    "sampler_correction",
    "weighted_sum",
    "zero_variance",
]
