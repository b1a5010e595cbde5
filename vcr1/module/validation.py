"""Evaluation of a policy within Lightning: greedy answers, judged, over all ranks."""

from __future__ import annotations

import lightning as L
import torch

from vcr1.module.rollouts import lost_judgement
from vcr1.policy import Sampling, VideoPolicy
from vcr1.records import Batch, Judgement, PromptInputs, Scorer


class ValidatedModule(L.LightningModule):
    """Evaluates a policy on held-out samples.

    Args:
        policy: the model.
        sampling: its length limit holds for evaluations too, which are greedy.

    Attributes:
        judgements: task's name -> sample id -> judgement of the last evaluation, over all ranks.
        validated: task's name -> task of that evaluation.
        evaluation: first part of the keys under which an evaluation is logged.
    """

    def __init__(self, policy: VideoPolicy, sampling: Sampling) -> None:
        super().__init__()
        self.policy = policy
        self.sampling = sampling
        self.eval_sampling = sampling.greedy()
        self.judgements: dict[str, dict[str, Judgement]] = {}
        self.validated: dict[str, Scorer] = {}
        self.evaluation = "val"

    def present_inputs(self, batch: Batch) -> list[PromptInputs]:
        """The inputs of a batch; dummy inputs where all samples are lost and other ranks may have theirs."""
        return batch.inputs if batch.samples else self.policy.dummy_inputs()

    def on_validation_epoch_start(self) -> None:
        """Forget the judgements of the evaluation before."""
        self.judgements = {}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Greedy answers, judged by the batch's own task."""
        self.validated[batch.task.name] = batch.task
        judgements = self.judgements.setdefault(batch.task.name, {})
        judgements |= {judgement.sample_id: judgement for judgement in self.answer(batch)}

    def on_validation_epoch_end(self) -> None:
        """Metrics over all ranks; a sample that padding gave to two ranks counts once."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks: list[dict[str, dict[str, Judgement]]] = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(ranks, self.judgements)
            names = sorted({name for rank in ranks for name in rank})
            self.judgements = {
                name: {id_: j for rank in ranks for id_, j in rank.get(name, {}).items()} for name in names
            }
        for name, scores in self.summaries().items():
            # The ranks agree already; sync_dist only tells Lightning so.
            logged = {f"{self.evaluation}/{name}/{metric}": value for metric, value in scores.items()}
            self.log_dict(logged, sync_dist=True, batch_size=len(self.judgements[name]))

    def summaries(self) -> dict[str, dict[str, float]]:
        """Return task's name -> its metrics over the last evaluation's judgements."""
        return {
            name: self.validated[name].summarise([judgements[id_] for id_ in sorted(judgements)])
            for name, judgements in self.judgements.items()
        }

    @torch.no_grad()
    def answer(self, batch: Batch) -> list[Judgement]:
        """Return one greedy completion per prompt, judged; a sample whose video was lost scores 0."""
        judgements = [lost_judgement(batch.task, lost) for lost in batch.lost]
        if batch.samples or self.policy.sharding is not None:
            inputs = self.present_inputs(batch)
            groups = self.policy.rollout(inputs, self.policy.vision(inputs), 1, self.eval_sampling)
        if batch.samples:
            judgements += batch.task.judge([texts[0] for texts in groups.texts], batch.samples).result()
        return judgements
