"""Base of the training modules: optimizer, evaluation, logging."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.finite import FiniteGuard, check_weights_are_finite, gradient_norm
from vcr1.module.randomness import seed_of, seed_process
from vcr1.module.schedule import check_optimizer, lr_factor, warmup_updates
from vcr1.module.update_log import Metrics, UpdateLog, judged_mean
from vcr1.module.update_weight import UpdateWeight
from vcr1.module.validation import ValidatedModule
from vcr1.policy import Sampling, VideoPolicy
from vcr1.policy.weights.sharding import awaited_state
from vcr1.records import Batch, Judgement, RolloutGroups, Scorer

log = logging.getLogger(__name__)

POSITION_RULE = "text_after_video"
"""Key in a checkpoint, and in a model's config, of the rule for the position of text behind a video."""


class PolicyModule(ValidatedModule):
    """Base of the training modules: optimizer, evaluation, logging.

    The gradient of an update is that of a mean over all of its micro-batches and ranks, whatever their sizes:
    each adds a sum in a fixed unit, and the update divides by what they weigh together.

    Args:
        policy: the model that is trained.
        lr: peak learning rate of AdamW.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup_steps: updates over which the learning rate rises from 0; below 1, a share of the run.
        schedule: ``constant``, ``linear`` or ``cosine`` after the warm-up.
        final_lr: share of the peak that a schedule ends with.
        sampling: how completions are drawn; evaluation keeps the length limit and is greedy.
        seed: source of all sampling.
        on_nonfinite: what an update is worth whose numbers are not finite, see
            :class:`~vcr1.module.finite.FiniteGuard`.

    Attributes:
        weight_unit: of a micro-batch's weight, the same for all micro-batches and ranks. It keeps the numbers
            near those of a mean, which half precision needs; the update does not depend on it.
    """

    weight_unit: float = 64.0

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        lr: float = 1e-6,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: float = 0,
        schedule: str = "constant",
        final_lr: float = 0.0,
        sampling: Sampling | None = None,
        seed: int = 0,
        on_nonfinite: str = "skip",
    ) -> None:
        super().__init__(policy, sampling or Sampling())
        if not isinstance(lr, float | int) or not 0 < lr < math.inf:
            raise UserError(f"algorithm.lr={lr} is no positive number")
        if not any(parameter.requires_grad for parameter in policy.parameters()):
            raise UserError("model.freeze leaves nothing of the model to train")
        check_optimizer(betas, weight_decay, warmup_steps, schedule, final_lr)
        self.lr = lr
        self.betas = (float(betas[0]), float(betas[1]))
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.final_lr = final_lr
        self.seed = seed
        self.guard = FiniteGuard(on_nonfinite)
        self.update_log = UpdateLog()
        self.phase = self.update_log.phase
        self.groups: RolloutGroups | None = None  # that the current micro-batch learns from
        self._updates = False
        self._gathered = UpdateWeight()
        self._micro_batch = 0  # of the epoch, from 1

    def policies(self) -> list[VideoPolicy]:
        """Return the models of this module, which a strategy may spread over ranks."""
        return [self.policy]

    def configure_model(self) -> None:
        """Let a strategy that shards do so; where a checkpoint is opened outside of a run, there is none."""
        strategy = None if self._trainer is None else self._trainer.strategy
        if (shard := getattr(strategy, "shard", None)) is not None:
            shard(self.policies())

    def configure_optimizers(self) -> Any:
        """AdamW on what is trained, with a learning rate per update."""
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
        if self.lr < 1e-4 and any(
            parameter.dtype in (torch.bfloat16, torch.float16) for parameter in parameters
        ):
            log.warning(
                "algorithm.lr=%g in half-precision weights: most updates round to nothing; "
                "set model.dtype=float32 and trainer.precision=bf16-mixed",
                self.lr,
            )
        total = self.trainer.estimated_stepping_batches
        warmup = warmup_updates(self.warmup_steps, total)

        def factor(update: int) -> float:
            return lr_factor(update, warmup, total, self.schedule, self.final_lr)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def seeds(self, batch_idx: int, prompts: int, attempt: int = 0) -> list[int]:
        """Return seeds of the completions of P prompts: functions of the run's seed and of the place in it.

        No state to save: a resumed run draws what the uninterrupted one would have drawn. And a prompt's
        completions are the same whatever is sampled beside them.

        Args:
            batch_idx: number of the micro-batch in its epoch.
            prompts: P.
            attempt: how often completions of the prompts have been sampled before.
        """
        place = self._place_in_run(batch_idx)
        return [seed_of(*place, prompt, attempt) for prompt in range(prompts)]

    def _place_in_run(self, batch_idx: int) -> tuple[int, int, int, int]:
        """Return what tells one micro-batch on one rank from all others."""
        return self.seed, self.trainer.current_epoch, batch_idx, self.global_rank

    def zero_loss(self) -> Tensor:
        """A zero loss that reaches every parameter, so that ranks stay in step where one has no sample.

        Not for a policy that is sharded: there dummy inputs take the place of the samples.
        """
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        return torch.stack([parameter.flatten()[:1].sum().float() for parameter in trained]).sum() * 0.0

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        """Return what a micro-batch adds to the gradient of its update.

        Args:
            loss: mean over the micro-batch.
            weight: what that mean divides by; the update's mean divides by the sum of all weights.
        """
        self._gathered.propose(loss, weight)
        return loss * (weight / self.weight_unit)

    def task_metrics(self, task: Scorer, judgements: Sequence[Judgement]) -> Metrics:
        """Means over completions of rewards, metrics and failures, under the task's name; always all keys."""
        self.update_log.counts["unjudged"] += sum(judgement.unjudged for judgement in judgements)
        reward = judged_mean([judgement.total for judgement in judgements])
        metrics: Metrics = {"reward": reward, f"{task.name}/reward/total": reward}
        for name in task.reward_names:
            metrics[f"{task.name}/reward/{name}"] = judged_mean([j.rewards[name] for j in judgements])
        for name in task.metric_names:
            metrics[f"{task.name}/{name}"] = judged_mean([j.metrics[name] for j in judgements])
        for reason in task.failure_reasons:
            failed = [float(judgement.failure == reason) for judgement in judgements]
            metrics[f"{task.name}/failed/{reason}"] = judged_mean(failed)
        return metrics

    def on_fit_start(self) -> None:
        """Pretrained models come in evaluation mode, in which gradient checkpointing is off."""
        self.policy.train()
        if self.policy.sharding is not None:
            self.policy.sharding.awaited = lambda: awaited_state(self.trainer.optimizers)

    def on_train_start(self) -> None:
        """Refuse weights that are not finite; waiting for data is counted from here."""
        check_weights_are_finite(self.policy, self.trainer.strategy, 0)
        self.phase.mark()

    def on_validation_end(self) -> None:
        """An evaluation is no time spent waiting for data."""
        self.phase.mark()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """The time since the last batch ended was spent waiting for data."""
        self.phase.charge("data")
        seed_process(seed_of(*self._place_in_run(batch_idx), "process"))
        self.groups, self._micro_batch = None, batch_idx + 1
        # Read before the update: the scheduler moves on with it.
        self.update_log.lr = self.trainer.optimizers[0].param_groups[0]["lr"]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients of a micro-batch; without memory for them, drop what the update has so far.

        A pass that breaks off has added to some gradients and not to others, so none of them can be kept.
        From then on passes are half as large.
        """
        try:
            loss.backward(*args, **kwargs)
            self._gathered.accept()
            return
        except torch.OutOfMemoryError:
            # Other ranks would wait for what this one has begun to send; a scaler wants gradients to scale.
            if self.trainer.world_size > 1 or self.groups is None or self.trainer.precision == "16-mixed":
                raise
        self.policy.halve_token_budget(self.groups)
        self.policy.zero_grad(set_to_none=True)
        self.update_log.counts["skipped_micro_batches"] += 1 + self._gathered.micro_batches
        self._gathered = UpdateWeight()

    def on_before_backward(self, loss: Tensor) -> None:
        """The backward pass belongs to the policy phase."""
        self.phase.mark()

    def on_after_backward(self) -> None:
        """Make the gradients a mean over the update behind its last micro-batch, before anyone looks at them.

        The time from here on, clipping and update, is the optimizer's.
        """
        self.phase.charge("policy")
        if self._micro_batch % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            gathered, self._gathered = self._gathered, UpdateWeight()
            found = gathered.normalise(self.policy.parameters(), self.weight_unit, self.trainer)
            self.update_log.of_update = found

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out an update whose numbers are not finite; log the gradient's norm and its clipped share."""
        self._updates = True
        norm = gradient_norm(self.policy.parameters())
        # A scaler skips overflows by itself: they are how it finds its scale.
        scaled = self.trainer.precision == "16-mixed"
        by_norm = self.trainer.gradient_clip_algorithm != "value"
        shown, limit = norm.item(), (by_norm and self.trainer.gradient_clip_val) or math.inf
        clipped = max(0.0, 1 - limit / (shown or 1.0))
        self.update_log.of_update |= {"grad_norm": shown, "grad_clipped": clipped}
        update = self.trainer.global_step + 1
        if self.guard.refuses(torch.zeros(()) if scaled else norm, update, self.trainer.strategy):
            self.policy.zero_grad(set_to_none=True)
            self.update_log.counts["skipped_updates"] += self.global_rank == 0

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log an update once its last micro-batch is through: the same keys on every rank."""
        self.phase.charge("optimizer")
        self.update_log.end_micro_batch()
        self.update_log.counts["lost_samples"] += len(batch.lost)
        for lost in batch.lost:
            log.warning("sample %s is lost: %s", lost.sample_id, lost.reason)
        if self._updates:
            self._log_update()
            check_weights_are_finite(self.policy, self.trainer.strategy, self.trainer.global_step)
        self.phase.mark()

    def _log_update(self) -> None:
        """Log the means of an update on the progress bar and with the loggers."""
        trainer: Any = self.trainer
        numbers = self.update_log.end_update(trainer.global_step, trainer.strategy, trainer.world_size)
        logged = {f"train/{name}": value for name, value in numbers.items()}
        # Past Lightning's own way to the loggers, which repeats the last values of tasks that had no turn.
        self.log_dict(logged, on_step=True, batch_size=1, logger=False)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            for logger in self.loggers:
                logger.log_metrics(logged | {"epoch": self.current_epoch}, step=trainer.global_step - 1)
        self._updates = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With adapters the base is not saved: it is what ``model.path`` names."""
        checkpoint["counts"] = dict(self.update_log.totals)
        checkpoint[POSITION_RULE] = self._position_rule()
        for name in self._base_weights():
            checkpoint["state_dict"].pop(name, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting, on the first rank; the base that is not saved is the one of this module."""
        rule, own = checkpoint.get(POSITION_RULE), self._position_rule()
        if rule is not None and rule != own:
            raise UserError(
                f"the checkpoint was trained with model.text_after_video={rule}, and the base states {own}: "
                f"give the one that was trained"
            )
        self.update_log.restore(checkpoint.get("counts", {}), self.global_rank == 0)
        for name, weight in self._base_weights().items() if "state_dict" in checkpoint else ():
            checkpoint["state_dict"].setdefault(name, weight)

    def _position_rule(self) -> str | None:
        """Return where the text behind a video goes on for the policy; None where it has no such rule."""
        return getattr(self.policy.model.config, POSITION_RULE, None)

    def _base_weights(self) -> dict[str, Tensor]:
        """Return the weights under the policy's adapters; none where it has no adapters."""
        if not self.policy.is_adapted:
            return {}
        state = self.policy.state_dict(prefix="policy.", keep_vars=True)
        return {name: weight.detach() for name, weight in state.items() if not weight.requires_grad}
