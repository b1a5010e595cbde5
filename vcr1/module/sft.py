"""Supervised fine-tuning as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.base import PolicyModule
from vcr1.objectives import masked_mean
from vcr1.policy import VideoPolicy
from vcr1.records import Batch, RolloutGroups

Auxiliary = Callable[[VideoPolicy, Batch, Tensor], Tensor]
SFT_METRICS = ("loss", "cross_entropy", "auxiliary_loss", "entropy")


class SFTModule(PolicyModule):
    """Supervised fine-tuning on the task's own answers: the paper's SFT baseline.

    The loss is the mean over all tokens of an update, as in TRL.

    Args:
        policy: the model that is trained.
        auxiliary: a further loss, a function of (policy, batch, last hidden states of the prompts
            ``[P, L, D]``, padded on the left): a number, or ``[P]`` numbers, which weigh as much as their
            sample's answer has tokens, so that they do not depend on how an update is cut.
        auxiliary_weight: its weight.
        common: arguments of :class:`PolicyModule`.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        auxiliary: Auxiliary | None = None,
        auxiliary_weight: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(policy, **common)
        self.auxiliary = auxiliary
        self.auxiliary_weight = auxiliary_weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return cross-entropy of the answers' tokens."""
        if not batch.samples:
            self.update_log.metrics = dict.fromkeys(SFT_METRICS)
            return self.zero_loss() if self.policy.sharding is None else self._join_collectives()
        answers = [batch.task.answer(sample) for sample in batch.samples]
        groups = self.policy.teacher_groups(batch.inputs, answers)
        values = self._learn(batch, groups)
        self.guard.look("loss", values[0])
        tokens = groups.completion_mask.sum().to(values[0].dtype)
        self.update_log.metrics = dict(zip(SFT_METRICS, torch.stack(values).tolist(), strict=True))
        self.groups = groups
        return self.weighted(values[0], tokens)

    def _learn(self, batch: Batch, groups: RolloutGroups) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss, its two parts and the entropy."""
        with self.phase("vision"):
            features = self.policy.vision(batch.inputs)
        with self.phase("policy"):
            scores = self.policy.logprobs(groups, features)
            cross_entropy = -masked_mean(scores.logprobs, groups.completion_mask)
            auxiliary = torch.zeros_like(cross_entropy)
            if self.auxiliary is not None:
                if scores.prompt_hidden is None:
                    raise UserError(
                        "algorithm.auxiliary asks for the prompts' hidden states, which this family of "
                        "models does not tell: set it to null, or write an adapter in vcr1/policy/families"
                    )
                own = self.auxiliary(self.policy, batch, scores.prompt_hidden)
                tokens = groups.completion_mask.sum((1, 2)).to(own.dtype)
                auxiliary = (own * tokens).sum() / tokens.sum()
            loss = cross_entropy + self.auxiliary_weight * auxiliary
        return loss, cross_entropy, auxiliary, masked_mean(scores.entropy, groups.completion_mask)

    def _join_collectives(self) -> Tensor:
        """Go along with ranks that have samples, where they share the weights."""
        inputs = self.policy.dummy_inputs()
        groups = self.policy.teacher_groups(inputs, ["-"])
        return self.policy.logprobs(groups, self.policy.vision(inputs)).logprobs.sum() * 0.0
