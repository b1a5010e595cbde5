"""What a micro-batch learns from: sampled groups, judged and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vcr1.module.update_log import Metrics
from vcr1.objectives import group_deviations, masked_mean, zero_variance
from vcr1.records import Batch, Completion, Judgement, LostSample, ParseFailure, RolloutGroups, Scorer
from vcr1.records.futures import after, finished

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

PendingGroups = Future[list[list[Judgement]]]
"""Judgements of ``P x G`` completions that are under way."""

Sampler = Callable[[Batch, list[Tensor | None]], tuple[RolloutGroups, PendingGroups]]
"""From prompts and their video features to completions that are being judged."""


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
    """

    groups: RolloutGroups
    mask: Tensor
    advantages: Tensor
    reference: Tensor | None
    old_logprobs: Tensor
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Sampled:
    """Completions of a micro-batch that are being judged, and what the models say of them.

    Attributes:
        groups: P·G completions.
        pending: their judgements.
        resampled: how many groups were sampled again.
        logprobs: ``[P, G, C]`` under the policy, without a graph.
        reference: ``[P, G, C]`` under the reference; None without one.
    """

    groups: RolloutGroups
    pending: PendingGroups
    resampled: int
    logprobs: Tensor
    reference: Tensor | None


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


def sample_groups(
    sample: Sampler,
    batch: Batch,
    features: list[Tensor | None],
    max_resamples: int,
    padding: int,
    again: Callable[[int], bool] = bool,
) -> tuple[RolloutGroups, PendingGroups, int]:
    """Sample completions and begin to judge them; sample again, so often, what would teach nothing.

    Source: dynamic sampling of DAPO, arXiv 2503.14476, section 3.2, within a micro-batch of fixed size: other
    completions of the same prompts rather than other prompts, and a bounded number of times, so that ranks
    do not wait for one another without end.

    Args:
        sample: completions of prompts, under judgement.
        batch: P prompts.
        features: their video features.
        max_resamples: how often a group of equal rewards is sampled again.
        padding: token id that fills up shorter completions.
        again: whether another round is made, from how many groups of this rank need it.

    Returns:
        The groups, their judgements, and how many groups were sampled again. Without resampling the
        judgements are under way.
    """
    groups, pending = sample(batch, features)
    if max_resamples == 0:
        return groups, pending, 0
    judgements, resampled = pending.result(), 0
    for _ in range(max_resamples):
        flat = zero_variance(total_rewards(judgements, torch.device("cpu"))).nonzero().flatten().tolist()
        if not again(len(flat)):
            break
        if not flat:
            continue
        others, pending = sample(batch_part(batch, flat), [features[place] for place in flat])
        groups = replace_groups(groups, flat, others, padding)
        for place, judged in zip(flat, pending.result(), strict=True):
            judgements[place] = judged
        resampled += len(flat)
    return groups, finished(judgements), resampled


def batch_part(batch: Batch, places: Sequence[int]) -> Batch:
    """Return the samples of a micro-batch at some places, as a micro-batch of their own."""
    return Batch(
        task=batch.task,
        samples=[batch.samples[place] for place in places],
        clips=[batch.clips[place] for place in places],
        inputs=[batch.inputs[place] for place in places],
        lost=[],
    )


def replace_groups(
    groups: RolloutGroups, places: Sequence[int], others: RolloutGroups, padding: int
) -> RolloutGroups:
    """Return a rollout with other completions of some of its prompts.

    Args:
        groups: P prompts.
        places: which of them get other completions.
        others: those completions, in that order; as many per prompt, of any length C.
        padding: token id that fills up the shorter ones.
    """
    width = max(groups.completion_ids.shape[-1], others.completion_ids.shape[-1])
    index = torch.tensor(places, device=groups.completion_ids.device)

    def merged(ours: Tensor, theirs: Tensor, fill: float = 0) -> Tensor:
        ours = pad(ours, (0, width - ours.shape[-1]), value=fill)
        return ours.index_copy(0, index, pad(theirs, (0, width - theirs.shape[-1]), value=fill))

    texts = dict(enumerate(groups.texts)) | dict(zip(places, others.texts, strict=True))
    return RolloutGroups(
        inputs=groups.inputs,
        completion_ids=merged(groups.completion_ids, others.completion_ids, padding),
        completion_mask=merged(groups.completion_mask, others.completion_mask),
        logprobs=merged(groups.logprobs, others.logprobs),
        truncated=groups.truncated.index_copy(0, index, others.truncated),
        texts=list(texts.values()),
    )


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
