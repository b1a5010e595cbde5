"""In which order a run sees its samples: a function of the seed alone, whatever was interrupted before."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

from vcr1.errors import UserError
from vcr1.records.repeats import Repeated, Repeats

Key = tuple[str, int]
"""Task's name and the sample's place in its training set."""


@dataclass(frozen=True, slots=True)
class Order:
    """The training order of a mixture of tasks, as an endless sequence of micro-batches.

    A micro-batch holds samples of one task, over all ranks: so ranks do the same work at the same time, and
    each gets its share of every task. An epoch shows ``weight * size`` samples of each task, less those that
    do not fill a last micro-batch; the next one goes on where it stopped, so that all samples are seen
    equally often in the long run, whatever the weights.

    Attributes:
        sizes: task's name -> samples in its training set.
        weights: task's name -> passes over its samples per epoch.
        batch_size: prompts of a micro-batch on one rank (P).
        world_size: ranks.
        shuffle: draw the samples of each pass, and the tasks of an epoch, in a random order; else samples
            come in their own order and tasks evenly spread.
        seed: of these orders.

    Raises:
        UserError: a weight that is not positive, or a task without a single micro-batch in an epoch.
    """

    sizes: Mapping[str, int]
    weights: Mapping[str, float]
    batch_size: int = 1
    world_size: int = 1
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise UserError(f"data.sources.{name}.weight={weight} is no positive number")
        for name, batches in self.batches.items():
            if batches == 0:
                raise UserError(
                    f"data.loader.batch_size={self.batch_size} on {self.world_size} rank(s), but there are "
                    f"only {self.sizes[name]} training samples of {name} (weight {self.weights[name]:g})"
                )

    @property
    def batches(self) -> dict[str, int]:
        """Return task's name -> its micro-batches in an epoch."""
        step = self.batch_size * self.world_size
        return {name: int(round(self.weights[name] * size, 6)) // step for name, size in self.sizes.items()}

    def __len__(self) -> int:
        """Return micro-batches of an epoch."""
        return sum(self.batches.values())

    def epoch(self, epoch: int) -> Iterator[list[Key]]:
        """Yield the micro-batches of an epoch in order, each over all ranks."""
        step = self.batch_size * self.world_size
        streams = {
            name: self._samples(name, epoch * count * step, count * step)
            for name, count in self.batches.items()
        }
        for name in self._tasks(epoch):
            yield [(name, next(streams[name])) for _ in range(step)]

    def batches_from(self, place: int) -> Iterator[list[Key]]:
        """Yield the endless sequence from micro-batch ``place`` on, epoch after epoch."""
        first, skip = divmod(place, len(self))
        for number in itertools.count(first):
            yield from itertools.islice(self.epoch(number), skip, None)
            skip = 0

    def _tasks(self, epoch: int) -> list[str]:
        """Return the task of each micro-batch of an epoch."""
        names = [name for name, count in self.batches.items() for _ in range(count)]
        if self.shuffle:
            return self._rng("tasks", epoch).sample(names, len(names))
        places = [(place + 0.5) / count for count in self.batches.values() for place in range(count)]
        return [name for _, name in sorted(zip(places, names, strict=True), key=lambda pair: pair[0])]

    def _samples(self, name: str, start: int, count: int) -> Iterator[int]:
        """``count`` samples of a task's endless sequence of passes, from place ``start`` on."""
        size = self.sizes[name]
        number, skip = divmod(start, size)
        while count > 0:
            order = range(size)
            chosen = (self._rng(name, number).sample(order, size) if self.shuffle else order)[
                skip : skip + count
            ]
            yield from chosen
            number, skip, count = number + 1, 0, count - len(chosen)

    def _rng(self, *place: object) -> random.Random:
        """Return randomness of one place; hashed, as neighbouring seeds must not give alike orders."""
        text = "-".join(map(str, (self.seed, *place)))
        return random.Random(hashlib.sha256(text.encode()).digest())


class MixtureSampler(DistributedSampler[Any]):
    """One rank's share of an order: yields the keys of one micro-batch after another.

    A ``DistributedSampler``, so that Lightning leaves it alone and tells it the epoch.

    Args:
        dataset: what the keys belong to.
        order: of all ranks.
        rank: whose share.
        progress: tells how many micro-batches the run has behind it, those before a resume included; an
            epoch begins there. Without it, where the epoch that was set begins.
        repeats: how often each micro-batch is trained on; see :class:`~vcr1.records.repeats.Repeats`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: Order,
        rank: int = 0,
        progress: Callable[[], int] | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=order.world_size, rank=rank, shuffle=order.shuffle)
        self.order = order
        self.progress = progress
        self.repeats = repeats or Repeats()

    def __len__(self) -> int:
        """Return micro-batches of an epoch, those that come again included."""
        return self.repeats.length(len(self.order))

    def __iter__(self) -> Iterator[list[Key] | Repeated]:
        """As many micro-batches as an epoch has, from where the run stands."""
        place = self.epoch * len(self) if self.progress is None else self.progress()
        size, first = self.order.batch_size, self.rank * self.order.batch_size
        count = self.repeats.block
        stream = self.order.batches_from(place // self.repeats.cycle * count)
        number, block = -1, list[list[Key]]()
        for fresh, again in self.repeats.places(place, len(self)):
            if fresh // count != number:
                number, block = fresh // count, list(itertools.islice(stream, count))
            keys = block[fresh % count]
            yield Repeated(task=keys[0][0]) if again else keys[first : first + size]
