"""Group relative policy optimisation and its relatives as a LightningModule."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.appraisal import Appraisal, Rewards
from vcr1.module.drafts import Draft, Idle
from vcr1.module.rollouts import (
    ROLLOUT_METRICS,
    UPDATE_METRICS,
    Rollout,
    Sampled,
    numbers,
    total_rewards,
)
from vcr1.module.sampled import SampledModule
from vcr1.module.update_log import Metrics
from vcr1.objectives import (
    BATCH_ADVANTAGES,
    Objective,
    PolicyLoss,
    estimate_advantages,
    masked_mean,
    policy_loss,
)
from vcr1.policy import RolloutEngine, TokenScores, VideoPolicy
from vcr1.records import Batch, Judgement
from vcr1.records.repeats import ReplayBatch


class GRPOModule(SampledModule):
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
        mask_truncated: leave completions that the length limit has cut out of the loss ("overlong filtering",
            DAPO, section 3.4); their rewards still count in the advantages of the others.
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
        mask_truncated: bool = False,
        reference_refresh: int | None = None,
        **common: Any,
    ) -> None:
        chosen = objective or Objective()
        super().__init__(
            policy,
            engine=engine,
            num_generations=num_generations,
            max_resamples=max_resamples,
            kl_weight=chosen.kl_weight,
            reference_refresh=reference_refresh,
            **common,
        )
        self.objective = chosen
        self.updates_per_rollout = updates_per_rollout
        self._check()
        self.appraisal = Appraisal(
            chosen,
            max_tokens=self.sampling.max_new_tokens,
            max_resamples=max_resamples,
            overlong_buffer=overlong_buffer,
            mask_truncated=mask_truncated,
            old_logprobs=old_logprobs,
        )
        # Tokens and completions are weighed in units of a group, see the base.
        self.weight_unit = num_generations * (super().weight_unit if chosen.average == "token" else 1.0)
        self._rollouts: deque[Rollout | None] = deque()  # to be trained on again
        # Of this update, not trained on yet: what was sampled, and what was judged with all of it.
        self._drafts: deque[Draft | Idle] = deque()
        self._planned: deque[Rollout | None] = deque()

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sample completions, or take stored ones again, then compute log-probs and loss."""
        scores = None
        if isinstance(batch, ReplayBatch):
            rollout = self._rollouts.popleft()
        else:
            if not self._drafts and not self._planned:
                self._sample_update(batch, batch_idx)
            if self._planned:
                rollout = self._planned.popleft()
            else:
                sampled, scores = self._appraise(self._drafts.popleft())
                (rollout,) = self._compute_advantages([batch], [sampled])
        self._keep(rollout)
        if scores is None:
            scores = self._join_passes() if rollout is None else self._score(rollout)
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
        return self.weighted(result.loss, result.weight)

    def _policy_loss(self, rollout: Rollout, scores: TokenScores) -> PolicyLoss:
        """Return what a rollout teaches the policy that scores it so."""
        return policy_loss(
            scores.logprobs,
            rollout.advantages,
            rollout.mask,
            self.objective,
            reference=rollout.reference,
            old_logprobs=rollout.old_logprobs,
            correction=rollout.correction,
            max_tokens=self.sampling.max_new_tokens,
        )

    def _sample_update(self, batch: Batch, batch_idx: int) -> None:
        """Sample an update, from this micro-batch on.

        Where advantages look at the whole update, all of it is judged before the first micro-batch is learned
        from. Its scores are then computed twice: no graphs are kept of a whole update.
        """
        batches = [batch, *self.rest_of_update(batch, batch_idx)]
        self._drafts.extend(self.sample_update(batches, batch_idx))
        if self.objective.advantage in BATCH_ADVANTAGES:
            with torch.no_grad():
                sampled = [self._appraise(self._drafts.popleft())[0] for _ in batches]
            self._planned.extend(self._compute_advantages(batches, sampled))

    def _appraise(self, draft: Draft | Idle) -> tuple[Sampled | None, TokenScores | None]:
        """Score the completions of a micro-batch; nothing where it has no samples."""
        if isinstance(draft, Idle):
            return None, self._join_passes(draft)
        groups, features = draft.groups, draft.features
        if features is None:
            with self.phase("vision"):
                features = self.policy.vision(groups.inputs)
        with self.phase("reference"):
            reference = self.reference_logprobs(groups, features)
        with self.phase("policy"):
            scores = self.policy.logprobs(groups, features, self.sampling.temperature)
        # A judge far away works while the passes above, and other micro-batches, are computed.
        # Ranks that share the tower ask it together, also those that have nothing to keep.
        kept = draft.features if self.policy.vision_is_frozen and self.policy.sharding is None else None
        sampled = Sampled(groups, draft.pending, draft.resampled, scores.logprobs.detach(), reference, kept)
        return sampled, scores

    def _join_passes(self, fresh: Idle | None = None) -> TokenScores | None:
        """Go along with the other ranks where this one has no samples and they share the weights.

        Args:
            fresh: a micro-batch that has not been scored yet, so that the reference is asked too.
        """
        if self.policy.sharding is None:
            return None
        inputs = self.policy.dummy_inputs()
        kept = None if fresh is None else fresh.features
        features = self.policy.vision(inputs) if kept is None else kept
        groups = self.policy.teacher_groups(inputs, ["-"])
        if fresh is not None:
            self.reference_logprobs(groups, features)
        return self.policy.logprobs(groups, features)

    def _score(self, rollout: Rollout) -> TokenScores:
        """Return log-probs of completions under the policy as it is now."""
        features = rollout.features
        if features is None:
            with self.phase("vision"):
                features = self.policy.vision(rollout.groups.inputs)
        with self.phase("policy"):
            return self.policy.logprobs(rollout.groups, features, self.sampling.temperature)

    def _compute_advantages(
        self, batches: Sequence[Batch], sampled: Sequence[Sampled | None]
    ) -> list[Rollout | None]:
        """Compute rewards, penalties and advantages, and find the groups that are left out."""
        with self.phase("reward"):
            rewards = [None if found is None else self._judged(found) for found in sampled]
        # Every rank makes one of these, whatever it has: others may wait for its share of the mean reward.
        shaped = [torch.empty(0, self.num_generations, device=self.device)]
        advantages = self._advantages(torch.cat(shaped + [one.shaped for one in rewards if one is not None]))
        rollouts: list[Rollout | None] = []
        for batch, found, own in zip(batches, sampled, rewards, strict=True):
            if found is None or own is None:
                rollouts.append(None)
                continue
            part, advantages = advantages.split([len(batch.samples), len(advantages) - len(batch.samples)])
            judged = [one for group in own.judgements for one in group]
            rollout = self.appraisal.rollout(found, own, part)
            logged = self._metrics(batch, judged, rollout.metrics)
            rollouts.append(replace(rollout, metrics=logged))
        return rollouts

    def _judged(self, found: Sampled) -> Rewards:
        """Wait for the judge, and look for numbers that are not finite."""
        judgements = found.pending.result()
        rewards = total_rewards(judgements, self.device)
        self.guard.look("reward", rewards, missing=True)
        self.guard.look("sampled log-probs", found.groups.logprobs)
        self.guard.look("reference log-probs", found.reference)
        self.guard.look("log-probs", found.logprobs)
        return self.appraisal.shape(found, judgements, rewards)

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Return ``[P, G]`` advantages of rewards; every rank calls it once for each plan."""
        over_ranks = partial(self.trainer.strategy.reduce, reduce_op="sum")
        return estimate_advantages(self.objective.advantage, rewards, over_ranks)

    def _keep(self, rollout: Rollout | None) -> None:
        """Keep the rollouts of one update for the next ones, if they are to be trained on again."""
        if self.updates_per_rollout > 1:
            self._rollouts.append(rollout)
            while len(self._rollouts) > self.trainer.accumulate_grad_batches:
                self._rollouts.popleft()

    def _metrics(self, batch: Batch, judgements: Sequence[Judgement], rollout: Metrics) -> Metrics:
        """Return all metrics of a step; None where this rank has no value yet."""
        missing: Metrics = dict.fromkeys((*UPDATE_METRICS, *ROLLOUT_METRICS))
        return self.task_metrics(batch.task, judgements) | missing | rollout
