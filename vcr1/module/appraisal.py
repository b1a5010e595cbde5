"""From judged completions to what a micro-batch learns from: penalties, masks, old log-probs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.rollouts import Rollout, Sampled, numbers, rollout_metrics
from vcr1.module.update_log import known
from vcr1.objectives import (
    Objective,
    kl_penalty,
    masked_mean,
    overlong_penalty,
    sampler_correction,
    zero_variance,
)
from vcr1.records import Judgement


@dataclass(frozen=True, slots=True)
class Rewards:
    """How a micro-batch's completions were judged.

    Attributes:
        judgements: ``P x G``, of the task.
        rewards: ``[P, G]`` totals of the task, NaN where a judge failed.
        overlong: ``[P, G]`` punishment of their length.
        shaped: ``[P, G]`` what advantages are made of: rewards and penalties.
    """

    judgements: list[list[Judgement]]
    rewards: Tensor
    overlong: Tensor
    shaped: Tensor


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Say what completions are worth, and which tokens count.

    Attributes:
        objective: the formulas.
        max_tokens: the length limit.
        max_resamples: whether groups of equal rewards are left out, as they have been sampled again.
        overlong_buffer: share of the length limit over which long completions are punished.
        mask_truncated: leave completions that the length limit has cut out of the loss.
        old_logprobs: ``trainer`` or ``sampler``.

    Raises:
        UserError: a setting out of its range.
    """

    objective: Objective
    max_tokens: int
    max_resamples: int = 0
    overlong_buffer: float = 0.0
    mask_truncated: bool = False
    old_logprobs: str = "trainer"

    def __post_init__(self) -> None:
        if self.old_logprobs not in ("trainer", "sampler"):
            raise UserError(f"algorithm.old_logprobs={self.old_logprobs}; choose from trainer, sampler")
        if self.old_logprobs == "sampler" and self.objective.correction:
            raise UserError(
                "algorithm.old_logprobs=sampler mends what differs between sampler and trainer already: set "
                "algorithm.objective.correction=null, or old_logprobs=trainer"
            )
        if not 0 <= self.overlong_buffer <= 1:
            raise UserError(
                f"algorithm.overlong_buffer={self.overlong_buffer} is no share of the length limit, 0..1"
            )

    def shape(self, found: Sampled, judgements: list[list[Judgement]], rewards: Tensor) -> Rewards:
        """Charge completions for their length, and for their distance from the reference, where set so.

        Args:
            found: P·G completions.
            judgements: of them.
            rewards: ``[P, G]`` totals of these.
        """
        groups, limit = found.groups, self.max_tokens
        overlong = overlong_penalty(groups.lengths, limit, round(self.overlong_buffer * limit))
        shaped = rewards + overlong
        if found.reference is not None and self.objective.kl_place == "reward":
            distance = kl_penalty(found.logprobs, found.reference, groups.completion_mask, self.objective.kl)
            shaped = shaped - self.objective.kl_weight * distance
        return Rewards(judgements, rewards, overlong, shaped)

    def rollout(self, found: Sampled, rewards: Rewards, advantages: Tensor) -> Rollout:
        """Return what a micro-batch learns from, and what there is to log of it.

        Args:
            found: P·G completions.
            rewards: of them.
            advantages: ``[P, G]``.
        """
        groups, totals = found.groups, rewards.rewards
        # By the task's rewards alone, as in DAPO: with penalties, no two completions would be equal.
        left_out = zero_variance(totals) if self.max_resamples else torch.zeros_like(totals[:, 0]).bool()
        mask = groups.completion_mask & ~left_out[:, None, None]
        if self.mask_truncated:
            mask = mask & ~groups.truncated[..., None]
        correction = sampler_correction(found.logprobs, groups.logprobs, mask, self.objective)
        weight = torch.ones_like(groups.logprobs) if correction is None else correction
        metrics = numbers(
            rollout_metrics(groups, totals, advantages, found.logprobs)
            | {"left_out_groups": left_out.float().sum(), "overlong_penalty": rewards.overlong.mean()}
            | {"sampler_correction": masked_mean(weight, mask)}
        )
        return Rollout(
            groups=groups,
            mask=mask,
            advantages=advantages,
            reference=found.reference,
            old_logprobs=groups.logprobs if self.old_logprobs == "sampler" else found.logprobs,
            metrics={**known(metrics), "resampled_groups": float(found.resampled)},
            features=found.features,
            correction=correction,
        )
