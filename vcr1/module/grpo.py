"""Group relative policy optimisation and its relatives as a LightningModule."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.reference import ReferencedModule
from vcr1.module.rollouts import (
    PendingGroups,
    Rollout,
    judge_groups,
    numbers,
    rollout_metrics,
    sample_groups,
    total_rewards,
)
from vcr1.module.update_log import Metrics, known
from vcr1.objectives import (
    Objective,
    PolicyLoss,
    estimate_advantages,
    kl_penalty,
    masked_mean,
    overlong_penalty,
    policy_loss,
    zero_variance,
)
from vcr1.policy import RolloutEngine, TokenScores, VideoPolicy
from vcr1.records import Batch, Judgement, RolloutGroups
from vcr1.records.repeats import ReplayBatch

UPDATE_METRICS = (
    "loss",
    "kl",
    "clip_fraction",
    "clip_fraction_low",
    "clip_fraction_high",
    "ratio_max",
    "entropy",
)
ROLLOUT_METRICS = (
    "reward_std",
    "advantage_spread",
    "zero_variance_groups",
    "resampled_groups",
    "left_out_groups",
    "overlong_penalty",
    "completion_tokens",
    "truncated",
    "sampler_mismatch",
    "sampler_mismatch_max",
)


class GRPOModule(ReferencedModule):
    """Group relative policy optimisation, and what is made of the same parts.

    Source: arXiv 2402.03300; settings of arXiv 2504.06958. The parts and their sources: `vcr1.objectives`.

    Args:
        policy: the model that is trained.
        objective: the formulas of advantages, loss and KL penalty; a ``kl_weight`` of 0 keeps no reference in
            memory.
        engine: what samples completions; None for the policy itself.
        num_generations: completions per prompt (G).
        updates_per_rollout: how often a micro-batch's completions are trained on; see `vcr1.records.repeats`.
        old_logprobs: log-probs that ratios are relative to, from the first pass of the ``trainer``, so that
            the first ratio is 1, or from the ``sampler``, which also mends what differs between the two.
        max_resamples: how often the completions of a group whose rewards are all equal are sampled again;
            groups that stay so are then left out of the loss (DAPO's dynamic sampling, arXiv 2503.14476,
            section 3.2, which draws other prompts instead). 0 does neither.
        overlong_buffer: share of the length limit over which DAPO's soft punishment of long completions
            grows; 0 punishes none.
        reference_refresh: updates after which the reference becomes the policy as it then is.
        common: arguments of :class:`PolicyModule`.

    Raises:
        UserError: a setting out of its range, groups that are too small to compare, or greedy sampling.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        objective: Objective | None = None,
        engine: RolloutEngine | None = None,
        num_generations: int = 8,
        updates_per_rollout: int = 1,
        old_logprobs: str = "trainer",
        max_resamples: int = 0,
        overlong_buffer: float = 0.0,
        reference_refresh: int | None = None,
        **common: Any,
    ) -> None:
        chosen = objective or Objective()
        super().__init__(policy, kl_weight=chosen.kl_weight, reference_refresh=reference_refresh, **common)
        self.objective = chosen
        self._engine = engine  # not the policy itself: its weights would have two names
        self.num_generations = num_generations
        self.updates_per_rollout = updates_per_rollout
        self.old_logprobs = old_logprobs
        self.max_resamples = max_resamples
        self.overlong_buffer = overlong_buffer
        self._check()
        self._rollouts: deque[Rollout | None] = deque()

    @property
    def engine(self) -> RolloutEngine:
        """Return what samples completions."""
        return self.policy if self._engine is None else self._engine

    def _check(self) -> None:
        """Refuse settings that cannot be."""
        least = 1 if self.objective.advantage == "batch" else 2
        if not isinstance(self.num_generations, int) or self.num_generations < least:
            size = f"algorithm.num_generations={self.num_generations}"
            raise UserError(f"{size}: a group needs at least {least} completions")
        if self.sampling.temperature == 0:
            raise UserError(
                "rollout.temperature=0 makes all completions of a group equal: nothing to learn from"
            )
        for name, least in (("updates_per_rollout", 1), ("max_resamples", 0)):
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise UserError(f"algorithm.{name}={value} is no whole number of at least {least}")
        if self.old_logprobs not in ("trainer", "sampler"):
            raise UserError(f"algorithm.old_logprobs={self.old_logprobs}; choose from trainer, sampler")
        if not 0 <= self.overlong_buffer <= 1:
            raise UserError(
                f"algorithm.overlong_buffer={self.overlong_buffer} is no share of the length limit, 0..1"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sample completions, or take stored ones again, then compute log-probs and loss."""
        if isinstance(batch, ReplayBatch):
            rollout = self._rollouts.popleft()
            scores = self._join_collectives() if rollout is None else self._score(rollout.groups)
        else:
            rollout, scores = self._roll_out(batch, batch_idx)
        self._keep(rollout)
        if rollout is None or scores is None:
            self.update_log.metrics = self._metrics(batch, [], {})
            return self.zero_loss() if scores is None else scores.logprobs.sum() * 0.0
        with self.phase("policy"):
            result = self._policy_loss(rollout, scores)
        self.groups = rollout.groups
        entropy = masked_mean(scores.entropy, rollout.groups.completion_mask)
        low, high = result.clip_fraction_low, result.clip_fraction_high
        values = (result.loss, result.kl, low + high, low, high, result.ratio_max, entropy)
        self.guard.look("loss", result.loss)
        updated: Metrics = {**numbers(dict(zip(UPDATE_METRICS, values, strict=True)))}
        self.update_log.metrics = rollout.metrics | updated
        return result.loss

    def _policy_loss(self, rollout: Rollout, scores: TokenScores) -> PolicyLoss:
        """Return what a rollout teaches the policy that scores it so."""
        return policy_loss(
            scores.logprobs,
            rollout.advantages,
            rollout.mask,
            self.objective,
            reference=rollout.reference,
            old_logprobs=rollout.old_logprobs,
            max_tokens=self.sampling.max_new_tokens,
        )

    def _roll_out(self, batch: Batch, batch_idx: int) -> tuple[Rollout | None, TokenScores | None]:
        """Sample, judge and score a fresh micro-batch; nothing where it has no samples."""
        if not batch.samples:
            scores = self._join_collectives(self.generator(batch_idx))
            # The other ranks may be waiting for this one's share of the batch's mean reward.
            self._advantages(torch.empty(0, self.num_generations, device=self.device))
            return None, scores
        with self.phase("vision"):
            features = self.policy.vision(batch.inputs)
        sample = partial(self._sample, generator=self.generator(batch_idx))
        groups, pending, resampled = sample_groups(
            sample, batch, features, self.max_resamples, self.policy.encoder.padding, self._again
        )
        with self.phase("reference"):
            reference = self.reference_logprobs(groups, features)
        with self.phase("policy"):
            scores = self.policy.logprobs(groups, features, self.sampling.temperature)
        with self.phase("reward"):
            judgements = pending.result()  # a judge far away worked while the passes above were computed
            rollout = self._compute_advantages(batch, groups, judgements, scores.logprobs.detach(), reference)
        rollout.metrics["resampled_groups"] = float(resampled)
        return rollout, scores

    def _sample(
        self, batch: Batch, features: list[Tensor | None], generator: torch.Generator
    ) -> tuple[RolloutGroups, PendingGroups]:
        """Sample G completions per prompt and begin to judge them."""
        with self.phase("rollout"):
            groups = self.engine.rollout(
                batch.inputs, features, self.num_generations, self.sampling, generator
            )
        with self.phase("reward"):
            return groups, judge_groups(batch, groups)

    def _again(self, wanted: int) -> bool:
        """Return whether any rank samples again; ranks that share the weights go along."""
        if self.policy.sharding is None:
            return wanted > 0
        anyone = self.policy.sharding.max_over_ranks(wanted) > 0
        if anyone and not wanted:
            self.policy.rollout(self.policy.dummy_inputs(video=False), [None], 1, self.sampling)
        return anyone

    def _join_collectives(self, generator: torch.Generator | None = None) -> TokenScores | None:
        """Go along with the other ranks where this one has no samples and they share the weights.

        Args:
            generator: of a fresh micro-batch; None where one comes again.
        """
        if self.policy.sharding is None:
            return None
        inputs = self.policy.dummy_inputs()
        features = self.policy.vision(inputs)
        if generator is None:
            groups = self.policy.teacher_groups(inputs, ["-"])
        else:
            groups = self.policy.rollout(inputs, features, 1, self.sampling, generator)
            for _ in range(self.max_resamples):
                if not self._again(0):
                    break
            self.reference_logprobs(groups, features)
        return self.policy.logprobs(groups, features)

    def _score(self, groups: RolloutGroups) -> TokenScores:
        """Return log-probs of completions under the policy as it is now."""
        with self.phase("vision"):
            features = self.policy.vision(groups.inputs)
        with self.phase("policy"):
            return self.policy.logprobs(groups, features, self.sampling.temperature)

    def _compute_advantages(
        self,
        batch: Batch,
        groups: RolloutGroups,
        judgements: list[list[Judgement]],
        logprobs: Tensor,
        reference: Tensor | None,
    ) -> Rollout:
        """Compute rewards, penalties and advantages, and find the groups that are left out."""
        rewards = total_rewards(judgements, self.device)
        self.guard.look("reward", rewards, missing=True)
        self.guard.look("sampled log-probs", groups.logprobs)
        self.guard.look("reference log-probs", reference)
        self.guard.look("log-probs", logprobs)
        limit = self.sampling.max_new_tokens
        overlong = overlong_penalty(groups.lengths, limit, round(self.overlong_buffer * limit))
        shaped = rewards + overlong
        if reference is not None and self.objective.kl_place == "reward":
            distance = kl_penalty(logprobs, reference, groups.completion_mask, self.objective.kl)
            shaped = shaped - self.objective.kl_weight * distance
        advantages = self._advantages(shaped)
        # By the task's rewards alone, as in DAPO: with penalties, no two completions would be equal.
        left_out = zero_variance(rewards) if self.max_resamples else rewards.new_zeros(len(rewards)).bool()
        metrics = rollout_metrics(groups, rewards, advantages, logprobs)
        metrics |= {"left_out_groups": left_out.float().sum(), "overlong_penalty": overlong.mean()}
        return Rollout(
            groups=groups,
            mask=groups.completion_mask & ~left_out[:, None, None],
            advantages=advantages,
            reference=reference,
            old_logprobs=groups.logprobs if self.old_logprobs == "sampler" else logprobs,
            metrics=self._metrics(batch, [one for group in judgements for one in group], metrics),
        )

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Return ``[P, G]`` advantages of rewards; every rank calls it once for each fresh micro-batch."""
        strategy = self.trainer.strategy

        def over_ranks(moments: Tensor) -> Tensor:
            added: Tensor = strategy.reduce(moments, reduce_op="sum")
            return added

        return estimate_advantages(self.objective.advantage, rewards, over_ranks)

    def _keep(self, rollout: Rollout | None) -> None:
        """Keep the rollouts of one update for the next ones, if they are to be trained on again."""
        if self.updates_per_rollout > 1:
            self._rollouts.append(rollout)
            while len(self._rollouts) > self.trainer.accumulate_grad_batches:
                self._rollouts.popleft()

    def _metrics(
        self, batch: Batch, judgements: Sequence[Judgement], tensors: Mapping[str, Tensor]
    ) -> Metrics:
        """Return all metrics of a step; None where this rank has no value yet."""
        missing: Metrics = dict.fromkeys((*UPDATE_METRICS, *ROLLOUT_METRICS))
        return self.task_metrics(batch.task, judgements) | missing | known(numbers(tensors))
