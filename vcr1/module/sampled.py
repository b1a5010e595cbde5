"""A policy that is trained on its own completions: how those of an update are sampled, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from vcr1.module.drafts import Draft, Drafter, Idle
from vcr1.module.reference import ReferencedModule
from vcr1.policy import RolloutEngine, VideoPolicy
from vcr1.records import Batch
from vcr1.records.repeats import ReplayBatch


class SampledModule(ReferencedModule):
    """A policy that is trained on its own completions; those of an update are sampled in one go.

    Args:
        policy: the model that is trained.
        engine: what samples completions; None for the policy itself.
        num_generations: completions per prompt (G).
        max_resamples: how often the completions of a group whose rewards are all equal are sampled again.
        common: arguments of :class:`ReferencedModule`.
    """

    looks_ahead = True
    """A loader shows the further micro-batches of an update, which are sampled together."""

    def __init__(
        self,
        policy: VideoPolicy,
        *,
        engine: RolloutEngine | None,
        num_generations: int,
        max_resamples: int,
        **common: Any,
    ) -> None:
        super().__init__(policy, **common)
        self.num_generations = num_generations
        self.max_resamples = max_resamples
        self.draft = Drafter(
            policy if engine is None else engine,
            num_generations,
            self.sampling,
            max_resamples,
            policy.encoder.padding,
        )

    def sample_update(self, batches: Sequence[Batch], batch_idx: int) -> list[Draft | Idle]:
        """Sample the completions of an update's micro-batches, and begin to judge them.

        Args:
            batches: the micro-batches.
            batch_idx: number of the first of them in its epoch.

        Returns:
            A draft of each that has samples.
        """
        # There is a graph behind the features of one micro-batch at most.
        keep = len(batches) == 1 or self.policy.vision_is_frozen
        places = [number for number, one in enumerate(batches) if one.samples]
        with torch.set_grad_enabled(keep), self.phase("vision"):
            features = [self._vision(one) for one in batches]
        if not places and self.policy.sharding is not None:
            self._sample_nothing()
        found = self.draft(
            [batches[place] for place in places],
            [features[place] for place in places],
            [self._seeds_of(batches[place], batch_idx + place) for place in places],
            keep=keep,
            phase=self.phase,
            again=self._again,
        )
        drafts = dict(zip(places, found, strict=True))
        return [drafts.get(place, Idle(own if keep else None)) for place, own in enumerate(features)]

    def _vision(self, batch: Batch) -> list[Tensor | None]:
        """Encode the videos of a micro-batch; ranks that share the weights do so together."""
        if batch.samples or self.policy.sharding is not None:
            return self.policy.vision(batch.inputs or self.policy.dummy_inputs())
        return []

    def _seeds_of(self, batch: Batch, batch_idx: int) -> Callable[[int], list[int]]:
        """Return the seeds of a micro-batch's prompts, round by round."""
        return lambda attempt: self.seeds(batch_idx, len(batch.samples), attempt)

    def rest_of_update(self, batch: Batch, batch_idx: int) -> list[Batch]:
        """Return the micro-batches that an update has after this one."""
        count = self.trainer.accumulate_grad_batches
        left = min(count - batch_idx % count, self.trainer.num_training_batches - batch_idx) - 1
        fresh = takewhile(lambda one: not isinstance(one, ReplayBatch), batch.ahead[: int(left)])
        return [one.to(self.device) for one in fresh]

    def _again(self, wanted: int) -> bool:
        """Return whether any rank samples again; ranks that share the weights go along."""
        if self.policy.sharding is None:
            return wanted > 0
        anyone = self.policy.sharding.max_over_ranks(wanted) > 0
        if anyone and not wanted:
            self._sample_nothing()
        return anyone

    def _sample_nothing(self) -> None:
        """Take part in a rollout of the other ranks."""
        self.policy.rollout(self.policy.dummy_inputs(video=False), [None], 1, self.sampling)
