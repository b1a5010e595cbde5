"""Thin LightningModules around the policy: GRPO and its sibling, supervised fine-tuning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.grpo import group_advantages, grpo_loss, masked_mean, zero_variance
from vcr1.phases import PhaseTimer
from vcr1.policy import Sampling, VideoPolicy
from vcr1.records import Batch, Completion, Judge, Judgement, LostSample, ParseFailure, RolloutGroups

Auxiliary = Callable[[VideoPolicy, Batch, list[Tensor | None]], Tensor]


class PolicyModule(L.LightningModule):
    """What the training modules share: optimizer, evaluation, logging.

    Args:
        policy: the model that is trained.
        lr: peak learning rate of AdamW.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup_steps: updates over which the learning rate rises from 0.
        schedule: ``constant``, ``linear`` or ``cosine`` after the warm-up.
        final_lr: share of the peak that a schedule ends with.
        sampling: how completions are drawn; evaluation keeps the length limit and is greedy.
        seed: source of all sampling.

    Attributes:
        judgements: sample id -> judgement of the last evaluation, over all ranks.
        validated_task: the task of that evaluation.
        evaluation: first part of the keys under which an evaluation is logged.
    """

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        lr: float = 1e-6,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: str = "constant",
        final_lr: float = 0.0,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise UserError(f"algorithm.schedule={schedule}; choose from {', '.join(SCHEDULES)}")
        self.policy = policy
        self.lr = lr
        self.betas = (betas[0], betas[1])
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.final_lr = final_lr
        self.sampling = sampling or Sampling()
        self.eval_sampling = Sampling(max_new_tokens=self.sampling.max_new_tokens, temperature=0.0)
        self.seed = seed
        self.phase = PhaseTimer()
        self.judgements: dict[str, Judgement] = {}
        self.validated_task: Judge
        self.evaluation = "val"
        self._step_metrics: dict[str, float] = {}

    def configure_optimizers(self) -> Any:
        """AdamW on what is trained, with a learning rate per update."""
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
        total = self.trainer.estimated_stepping_batches

        def factor(update: int) -> float:
            return lr_factor(update, self.warmup_steps, total, self.schedule, self.final_lr)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def generator(self, batch_idx: int) -> torch.Generator:
        """Randomness of one micro-batch on one rank: a function of the seed and the place in the run.

        No state to save: a resumed run draws what the uninterrupted one would have drawn.
        """
        place = f"{self.seed}-{self.trainer.current_epoch}-{batch_idx}-{self.global_rank}"
        digest = hashlib.sha256(place.encode()).digest()
        return torch.Generator(self.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def nothing_to_learn(self) -> Tensor:
        """A zero loss that reaches every parameter, so that ranks stay in step where one has no sample."""
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        return torch.stack([parameter.flatten()[:1].sum().float() for parameter in trained]).sum() * 0.0

    def task_metrics(self, task: Judge, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Means over completions of rewards, metrics and failures, under the task's name; always all keys."""
        count = len(judgements)

        def mean(values: Sequence[float]) -> float:
            return sum(values) / count if count else math.nan

        metrics = {"reward": mean([judgement.total for judgement in judgements])}
        for name in task.reward_names:
            metrics[f"{task.name}/reward/{name}"] = mean([j.rewards[name] for j in judgements])
        for name in task.metric_names:
            metrics[f"{task.name}/{name}"] = mean([j.metrics[name] for j in judgements])
        for reason in task.failure_reasons:
            metrics[f"{task.name}/failed/{reason}"] = mean([float(j.failure == reason) for j in judgements])
        return metrics

    def on_fit_start(self) -> None:
        """Pretrained models come in evaluation mode, in which gradient checkpointing is off."""
        self.policy.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """The time since the last batch ended was spent waiting for data."""
        self.phase.charge("data")

    def on_before_backward(self, loss: Tensor) -> None:
        """The backward pass belongs to the policy phase."""
        self.phase.mark()

    def on_after_backward(self) -> None:
        """What follows, clipping and update, is the optimizer's."""
        self.phase.charge("policy")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the step: the same keys on every rank, averaged over the ranks that have a value."""
        self.phase.charge("optimizer")
        metrics = self._step_metrics | {"lost_samples": float(len(batch.lost))}
        metrics |= {f"seconds/{name}": seconds for name, seconds in self.phase.take().items()}
        metrics["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        means = self._mean_over_ranks(metrics)
        self.log_dict({f"train/{name}": value for name, value in means.items()}, on_step=True, batch_size=1)
        for lost in batch.lost:
            L.pytorch.utilities.rank_zero_warn(f"sample {lost.sample_id} lost: {lost.reason}")
        self.phase.mark()

    def _mean_over_ranks(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Mean of each metric over the ranks where it is a number; one message for all of them."""
        values = torch.tensor([list(metrics.values())])
        sums = torch.cat([values.nan_to_num(0.0), (~values.isnan()).to(values.dtype)]).to(self.device)
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return dict(zip(metrics, (sums[0] / sums[1]).tolist(), strict=True))

    def on_validation_epoch_start(self) -> None:
        """Forget the judgements of the evaluation before."""
        self.judgements = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Greedy answers, judged by the batch's own task."""
        self.validated_task = batch.task
        for judgement in self.answer(batch):
            self.judgements[judgement.sample_id] = judgement

    def on_validation_epoch_end(self) -> None:
        """Metrics over all ranks; a sample that padding gave to two ranks counts once."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks: list[dict[str, Judgement]] = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(ranks, self.judgements)
            self.judgements = {id_: judgement for rank in ranks for id_, judgement in rank.items()}
        if not self.judgements:
            return
        task = self.validated_task
        judgements = [self.judgements[id_] for id_ in sorted(self.judgements)]
        metrics = {f"{task.name}/{name}": value for name, value in task.summarise(judgements).items()}
        # The ranks agree already; sync_dist only tells Lightning so.
        logged = {f"{self.evaluation}/{name}": value for name, value in metrics.items()}
        self.log_dict(logged, sync_dist=True, batch_size=len(judgements))

    @torch.no_grad()
    def answer(self, batch: Batch) -> list[Judgement]:
        """One greedy completion per prompt, judged; a sample whose video was lost scores 0."""
        judgements = [lost_judgement(batch.task, lost) for lost in batch.lost]
        if batch.samples:
            groups = self.policy.rollout(
                batch.inputs, self.policy.vision(batch.inputs), 1, self.eval_sampling
            )
            pairs = zip(groups.texts, batch.samples, strict=True)
            judgements += [batch.task.judge(texts[0], sample) for texts, sample in pairs]
        return judgements


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
        if num_generations < 2:
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
        with self.phase("reward"):
            judgements = judge_groups(batch, groups)
            rewards = torch.tensor([[j.total for j in group] for group in judgements], device=self.device)
            advantages = group_advantages(rewards)
        with self.phase("reference"):
            reference = self._reference_logprobs(groups, features)
        with self.phase("policy"):
            scores = self.policy.logprobs(groups, features, self.sampling.temperature)
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
                "reward_std": rewards.std(-1).mean(),
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


class SFTModule(PolicyModule):
    """Supervised fine-tuning on the task's own answers: the paper's SFT baseline.

    Args:
        policy: the model that is trained.
        auxiliary: a further loss, a function of (policy, batch, features).
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
        """Cross-entropy of the answers' tokens."""
        if not batch.samples:
            self._step_metrics = dict.fromkeys(SFT_METRICS, math.nan)
            return self.nothing_to_learn()
        with self.phase("vision"):
            features = self.policy.vision(batch.inputs)
        with self.phase("policy"):
            answers = [batch.task.answer(sample) for sample in batch.samples]
            groups = self.policy.teacher_groups(batch.inputs, answers)
            scores = self.policy.logprobs(groups, features)
            cross_entropy = -masked_mean(scores.logprobs, groups.completion_mask)
            auxiliary = torch.zeros_like(cross_entropy)
            if self.auxiliary is not None:
                auxiliary = self.auxiliary(self.policy, batch, features)
            loss = cross_entropy + self.auxiliary_weight * auxiliary
        values = (loss, cross_entropy, auxiliary, masked_mean(scores.entropy, groups.completion_mask))
        self._step_metrics = dict(zip(SFT_METRICS, torch.stack(values).tolist(), strict=True))
        return loss


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
SFT_METRICS = ("loss", "cross_entropy", "auxiliary_loss", "entropy")
SCHEDULES = ("constant", "linear", "cosine")


def judge_groups(batch: Batch, groups: RolloutGroups) -> list[list[Judgement]]:
    """``P x G`` judgements of a rollout by the batch's own task."""
    pairs = zip(groups.texts, batch.samples, strict=True)
    return [[batch.task.judge(text, sample) for text in texts] for texts, sample in pairs]


def lost_judgement(task: Judge, lost: LostSample) -> Judgement:
    """What a sample scores whose video could not be read: nothing, but it counts."""
    return Judgement(
        sample_id=lost.sample_id,
        completion=Completion("", ParseFailure("lost_video")),
        rewards=dict.fromkeys(task.reward_names, 0.0),
        total=0.0,
        metrics=dict.fromkeys(task.metric_names, 0.0),
    )


def lr_factor(update: int, warmup: int, total: float, schedule: str, final: float) -> float:
    """Share of the peak learning rate at an update, counted from 0.

    Rises linearly over ``warmup`` updates, then stays, or falls to ``final`` at ``total`` in a line or a
    half cosine.
    """
    if update < warmup:
        return (update + 1) / warmup
    if schedule == "constant" or not math.isfinite(total):
        return 1.0
    progress = min(1.0, (update - warmup) / max(1.0, total - warmup))
    height = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return final + (1 - final) * height
