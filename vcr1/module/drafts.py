"""The completions of an update, sampled in one go, before anything is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vcr1.module.phases import PhaseTimer
from vcr1.module.rollouts import PendingGroups, judge_groups, total_rewards
from vcr1.objectives import zero_variance
from vcr1.policy import RolloutEngine, Sampling
from vcr1.records import Batch, Judgement, RolloutGroups
from vcr1.records.futures import finished

Features = list[Tensor | None]
"""Video features of prompts."""

Again = Callable[[int], bool]
"""Whether another round is made, from how many groups of this rank need it."""


@dataclass(slots=True)
class Draft:
    """A micro-batch whose completions are being judged.

    Attributes:
        batch: the micro-batch.
        features: video features of its prompts; None where they are computed again.
        seeds: of its prompts, for each round of sampling.
        groups: P·G completions.
        pending: their judgements.
        resampled: how many groups were sampled again.
    """

    batch: Batch
    features: Features | None
    seeds: Callable[[int], list[int]]
    groups: RolloutGroups
    pending: PendingGroups
    resampled: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """A micro-batch without samples: what this rank computes so that others need not wait for it.

    Attributes:
        features: video features of dummy inputs; None where they are computed again.
    """

    features: Features | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Prompts of one micro-batch that completions are wanted for.

    Attributes:
        batch: the prompts.
        features: their video features.
        seeds: of their completions.
    """

    batch: Batch
    features: Features
    seeds: list[int]


@dataclass(frozen=True, slots=True)
class Drafter:
    """Samples the completions of several micro-batches together and begins to judge them.

    Attributes:
        engine: what samples.
        num_generations: completions per prompt (G).
        sampling: decoding parameters.
        max_resamples: how often a group of equal rewards is sampled again.
        padding: token id that fills up shorter completions.
    """

    engine: RolloutEngine
    num_generations: int
    sampling: Sampling
    max_resamples: int
    padding: int

    def __call__(
        self,
        batches: Sequence[Batch],
        features: Sequence[Features],
        seeds: Sequence[Callable[[int], list[int]]],
        keep: bool,
        phase: PhaseTimer,
        again: Again = bool,
    ) -> list[Draft]:
        """Return micro-batches with their completions.

        Groups of equal rewards are sampled again, so often, as they would teach nothing. Source: dynamic
        sampling of DAPO, arXiv 2503.14476, section 3.2, within an update of fixed size: other completions of
        the same prompts rather than other prompts, and a bounded number of times, so that ranks do not wait
        for one another without end.

        Args:
            batches: micro-batches that have samples.
            features: video features of the prompts of each.
            seeds: of the prompts of each, for every round.
            keep: whether the drafts keep the features.
            phase: charged for the time.
            again: see :data:`Again`.
        """
        asked = [
            Wanted(batch, own, seed(0)) for batch, own, seed in zip(batches, features, seeds, strict=True)
        ]
        drafts = [
            Draft(one.batch, one.features if keep else None, seed, *found)
            for one, seed, found in zip(asked, seeds, self._sampled(asked, phase), strict=True)
        ]
        judged: list[list[list[Judgement]]] = []
        if self.max_resamples:
            judged = [draft.pending.result() for draft in drafts]
        for attempt in range(1, self.max_resamples + 1):
            flat = [_places(zero_variance(total_rewards(found, torch.device("cpu")))) for found in judged]
            if not again(sum(map(len, flat))):
                break
            wanted = [number for number, places in enumerate(flat) if places]
            parts = [_asked_again(asked[number], drafts[number], flat[number], attempt) for number in wanted]
            for number, (others, pending) in zip(wanted, self._sampled(parts, phase), strict=True):
                draft = drafts[number]
                draft.groups = replace_groups(draft.groups, flat[number], others, self.padding)
                draft.resampled += len(flat[number])
                for place, group in zip(flat[number], pending.result(), strict=True):
                    judged[number][place] = group
        for number, judgements in enumerate(judged):
            drafts[number].pending = finished(judgements)
        return drafts

    def _sampled(
        self, asked: Sequence[Wanted], phase: PhaseTimer
    ) -> list[tuple[RolloutGroups, PendingGroups]]:
        """Sample G completions of all prompts at once, and begin to judge those of each micro-batch."""
        if not asked:
            return []
        inputs = [item for one in asked for item in one.batch.inputs]
        features = [feature for one in asked for feature in one.features]
        seeds = [seed for one in asked for seed in one.seeds]
        with phase("rollout"):
            groups = self.engine.rollout(inputs, features, self.num_generations, self.sampling, seeds)
        found, start = [], 0
        with phase("reward"):
            for one in asked:
                end = start + len(one.batch.samples)
                own = groups if end - start == len(inputs) else groups.part(list(range(start, end))).trimmed()
                found.append((own, judge_groups(one.batch, own)))
                start = end
        return found


def _places(chosen: Tensor) -> list[int]:
    """Return where a bool vector is True."""
    places: list[int] = chosen.nonzero().flatten().tolist()
    return places


def _asked_again(asked: Wanted, draft: Draft, places: list[int], attempt: int) -> Wanted:
    """Return some of a micro-batch's prompts, for another round."""
    seeds = draft.seeds(attempt)
    return Wanted(
        batch_part(asked.batch, places),
        [asked.features[place] for place in places],
        [seeds[place] for place in places],
    )


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
