"""What a micro-batch learns from: sampled groups, judged and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from vcr1.module.update_log import Metrics
from vcr1.objectives import group_deviations, masked_mean, zero_variance
from vcr1.records import Batch, Completion, Judgement, LostSample, ParseFailure, RolloutGroups, Scorer
from vcr1.records.futures import after

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
    "sampler_correction",
)

PendingGroups = Future[list[list[Judgement]]]
"""Judgements of ``P x G`` completions that are under way."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Everything that a micro-batch learns from, the same in all of its updates.

    Attributes:
        groups: P·G completions.
        mask: ``[P, G, C]`` True at the tokens that count: none in a group that is left out.
        advantages: ``[P, G]``.
        reference: ``[P, G, C]`` log-probs under the reference, as it was then; None without one.
        old_logprobs: ``[P, G, C]`` log-probs that importance ratios are relative to.
        metrics: what there is to log of the rollout.
        features: video features of the prompts, if they stay the same; else each update computes them.
        correction: ``[P, G, C]`` weights against what differs between engine and trainer, if any.
    """

    groups: RolloutGroups
    mask: Tensor
    advantages: Tensor
    reference: Tensor | None
    old_logprobs: Tensor
    metrics: Metrics
    features: list[Tensor | None] | None = None
    correction: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """Completions of a micro-batch that are being judged, and what the models say of them.

    Attributes:
        groups: P·G completions.
        pending: their judgements.
        resampled: how many groups were sampled again.
        logprobs: ``[P, G, C]`` under the policy, without a graph.
        reference: ``[P, G, C]`` under the reference; None without one.
        features: video features of the prompts, if they stay the same.
    """

    groups: RolloutGroups
    pending: PendingGroups
    resampled: int
    logprobs: Tensor
    reference: Tensor | None
    features: list[Tensor | None] | None = None


def judge_groups(batch: Batch, groups: RolloutGroups) -> PendingGroups:
    """Begin to judge a rollout by the batch's own task: ``P x G`` judgements."""
    count = len(groups.texts[0])
    samples = [sample for sample in batch.samples for _ in range(count)]
    return after(
        batch.task.judge([text for texts in groups.texts for text in texts], samples),
        lambda found: [found[start : start + count] for start in range(0, len(found), count)],
    )


def total_rewards(judgements: Sequence[Sequence[Judgement]], device: torch.device) -> Tensor:
    """Return ``[P, G]`` float32 total rewards of ``P x G`` judgements, NaN where a judge failed."""
    totals = [[judgement.total for judgement in group] for group in judgements]
    # Named, as half-precision training changes the default type.
    return torch.tensor(totals, dtype=torch.float32, device=device)


def rollout_metrics(
    groups: RolloutGroups, rewards: Tensor, advantages: Tensor, logprobs: Tensor
) -> dict[str, Tensor]:
    """Return what there is to log of a rollout, scalars.

    Args:
        groups: P·G completions.
        rewards: ``[P, G]`` of the task alone.
        advantages: ``[P, G]``.
        logprobs: ``[P, G, C]`` of the trainer's first pass; how far they are from the sampler's own tells
            what differs between the two passes, not how far the policy has moved.
    """
    mask = groups.completion_mask
    mismatch = (logprobs - groups.logprobs).abs().masked_fill(~mask, 0.0)
    return {
        "reward_std": group_deviations(rewards).mean(),
        "advantage_spread": (advantages.amax(-1) - advantages.amin(-1)).mean(),
        "zero_variance_groups": zero_variance(rewards).float().mean(),
        "completion_tokens": groups.lengths.float().mean(),
        "truncated": groups.truncated.float().mean(),
        "sampler_mismatch": masked_mean(mismatch, mask),
        "sampler_mismatch_max": mismatch.max(),
    }


def numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars as numbers, with one wait for the device."""
    if not scalars:
        return {}
    values = torch.stack([scalar.detach().float() for scalar in scalars.values()])
    return dict(zip(scalars, values.tolist(), strict=True))


def lost_judgement(task: Scorer, lost: LostSample) -> Judgement:
    """Return what a sample scores whose video could not be read: nothing, but it counts."""
    return Judgement(
        sample_id=lost.sample_id,
        completion=Completion("", ParseFailure("lost_video")),
        rewards=dict.fromkeys(task.reward_names, 0.0),
        total=0.0,
        metrics=dict.fromkeys(task.metric_names, 0.0),
        category=lost.category,
        failure="lost_video",
    )
