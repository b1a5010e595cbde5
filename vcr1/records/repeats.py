"""Several updates per rollout: in which order micro-batches come again, and what stands for them then.

With R updates per rollout and updates of k micro-batches, k fresh micro-batches are followed by the same k
again, R - 1 times: a cycle of R k. A micro-batch that comes again brings no pixels: whoever trains on it has
kept the rollout. So nothing is decoded or sampled twice, and for Lightning a repeated update is an update
like any other (accumulation, clipping, precision, several ranks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vcr1.records import Batch, Scorer


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often, and in which pieces, micro-batches are trained on.

    Attributes:
        updates: updates per rollout (R).
        block: micro-batches per update (k), ``trainer.accumulate_grad_batches``.
    """

    updates: int = 1
    block: int = 1

    @property
    def cycle(self) -> int:
        """Return micro-batches from one block of fresh ones to the next."""
        return self.updates * self.block

    def length(self, fresh: int) -> int:
        """Return micro-batches of an epoch that has ``fresh`` different ones.

        With several updates, the last ones that do not fill an update are left for the next epoch, as an
        update could not repeat them alone.
        """
        return fresh if self.updates == 1 else fresh // self.block * self.cycle

    def places(self, start: int, count: int) -> Iterator[tuple[int, bool]]:
        """The ``count`` micro-batches from place ``start`` of the run on: (fresh one, whether it is again).

        Where the start lies within a cycle, as after a resume, the rollouts that were made there are gone.
        The fresh micro-batches of the cycle come anew, and again for what remains of it: so the cycle ends
        where it would have ended, and what follows is what would have followed.
        """
        for place in range(start, start + count):
            number, within = divmod(place, self.cycle)
            fresh = number * self.block + within % self.block
            made = max(start, number * self.cycle)
            yield fresh, place >= made + self.block


@dataclass(frozen=True, slots=True)
class Repeated:
    """A sampler's entry for the micro-batch of ``block`` micro-batches ago, once more.

    Attributes:
        task: its task's name.
    """

    task: str


class ReplayBatch(Batch):
    """The micro-batch of ``block`` micro-batches ago, once more: no samples, no pixels, nothing lost.

    Args:
        task: the judge of its samples.
    """

    def __init__(self, task: Scorer) -> None:
        super().__init__(task, [], [], [], [])

    def to(self, device: torch.device) -> ReplayBatch:
        """Itself: there is nothing to move."""
        return self

    def pin_memory(self) -> ReplayBatch:
        """Itself: there is nothing to pin."""
        return self
