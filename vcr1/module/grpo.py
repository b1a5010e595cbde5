"""Group relative policy optimisation as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.grpo import group_advantages, group_deviations, grpo_loss, masked_mean, zero_variance
from vcr1.module.base import PolicyModule
from vcr1.policy import VideoPolicy
from vcr1.records import Batch, Judgement, RolloutGroups

GRPO_METRICS = (
    "loss",
    "kl",
    "clip_fraction",
    "entropy",
    "reward_std",
    "advantage_spread",
    "zero_variance_groups",
    "completion_tokens",
    "truncated",
)


class GRPOModule(PolicyModule):
    """Group relative policy optimisation with one update per rollout.

    Source: arXiv 2402.03300; settings of arXiv 2504.06958.

    Args:
        policy: the model that is trained; a frozen copy of it as it comes in is the reference.
        num_generations: completions per prompt (G).
        kl_weight: beta of the KL penalty; 0 keeps no reference in memory.
        clip_range: epsilon of the ratio's clip range.
        common: arguments of :class:`PolicyModule`.

    Raises:
        UserError: a group of fewer than 2, greedy sampling, or a negative KL weight.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        num_generations: int = 8,
        kl_weight: float = 0.04,
        clip_range: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(policy, **common)
        if not isinstance(num_generations, int) or num_generations < 2:
            raise UserError(
                f"algorithm.num_generations={num_generations}: a group needs at least 2 completions"
            )
        if self.sampling.temperature == 0:
            raise UserError(
                "rollout.temperature=0 makes all completions of a group equal: nothing to learn from"
            )
        if kl_weight < 0:
            raise UserError(f"algorithm.kl_weight={kl_weight} is negative")
        self.num_generations = num_generations
        self.kl_weight = kl_weight
        self.clip_range = clip_range
        self.reference = policy.frozen_copy() if kl_weight else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Rollout, rewards, advantages, log-probs, loss."""
        if not batch.samples:
            self._step_metrics = self._metrics(batch, [], {})
            return self.nothing_to_learn()
        with self.phase("vision"):
            features = self.policy.vision(batch.inputs)
        with self.phase("rollout"):
            groups = self.policy.rollout(
                batch.inputs, features, self.num_generations, self.sampling, self.generator(batch_idx)
            )
        with self.phase("reward"):  # a judge that is far away works while the passes below are computed
            pending = judge_groups(batch, groups)
        with self.phase("reference"):
            reference = self._reference_logprobs(groups, features)
        with self.phase("policy"):
            scores = self.policy.logprobs(groups, features, self.sampling.temperature)
        with self.phase("reward"):
            judgements = pending()
            totals = [[judgement.total for judgement in group] for group in judgements]
            # Named, as half-precision training changes the default type.
            rewards = torch.tensor(totals, dtype=torch.float32, device=self.device)
            advantages = group_advantages(rewards)
        with self.phase("policy"):
            result = grpo_loss(
                scores.logprobs,
                advantages,
                groups.completion_mask,
                reference=reference,
                kl_weight=self.kl_weight,
                clip_range=self.clip_range,
            )
        self._step_metrics = self._metrics(
            batch,
            [judgement for group in judgements for judgement in group],
            {
                "loss": result.loss,
                "kl": result.kl,
                "clip_fraction": result.clip_fraction,
                "entropy": masked_mean(scores.entropy, groups.completion_mask),
                "reward_std": group_deviations(rewards).mean(),
                "advantage_spread": (advantages.amax(-1) - advantages.amin(-1)).mean(),
                "zero_variance_groups": zero_variance(rewards).float().mean(),
                "completion_tokens": groups.lengths.float().mean(),
                "truncated": groups.truncated.float().mean(),
            },
        )
        return result.loss

    @torch.no_grad()
    def _reference_logprobs(self, groups: RolloutGroups, features: list[Tensor | None]) -> Tensor | None:
        """Log-probs under the reference, with its own vision tower unless the policy's is as it was."""
        if self.reference is None:
            return None
        if not self.policy.vision_is_frozen:
            features = self.reference.vision(groups.inputs)
        return self.reference.logprobs(groups, features, self.sampling.temperature).logprobs

    def _metrics(
        self, batch: Batch, judgements: Sequence[Judgement], tensors: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """All metrics of a step; NaN where this rank has no value."""
        values = dict.fromkeys(GRPO_METRICS, math.nan)
        if tensors:
            values |= dict(
                zip(
                    tensors, torch.stack([t.detach().float() for t in tensors.values()]).tolist(), strict=True
                )
            )
        return self.task_metrics(batch.task, judgements) | values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The reference is the model that the run began with: it is not saved a second time."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith("reference.")]:
            del state[name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the reference that this module was built with."""
        if self.reference is not None:
            own = self.reference.state_dict(prefix="reference.")
            checkpoint["state_dict"] |= own


def judge_groups(batch: Batch, groups: RolloutGroups) -> Callable[[], list[list[Judgement]]]:
    """Begin to judge a rollout by the batch's own task; the call waits for ``P x G`` judgements."""
    count = len(groups.texts[0])
    samples = [sample for sample in batch.samples for _ in range(count)]
    pending = batch.task.judge([text for texts in groups.texts for text in texts], samples)

    def collect() -> list[list[Judgement]]:
        judgements = pending()
        return [judgements[start : start + count] for start in range(0, len(judgements), count)]

    return collect
