"""The log of one update: its micro-batches' metrics, averaged over micro-batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.strategies import Strategy

from vcr1.module.phases import PhaseTimer

COUNTS = ("lost_samples", "unjudged", "skipped_micro_batches")
"""Numbers that are added up from the beginning of a run, over all ranks."""


class UpdateLog:
    """Collect the metrics of an update's micro-batches.

    Attributes:
        phase: seconds by phase.
        metrics: of the current micro-batch.
        counts: this rank's counts of :data:`COUNTS`.
        totals: counts of all ranks at the last update.
        update: number of the last logged update.
        numbers: of that update.
        lr: learning rate of the current update.
    """

    def __init__(self) -> None:
        self.phase = PhaseTimer()
        self.metrics: dict[str, float] = {}
        self.counts = dict.fromkeys(COUNTS, 0)
        self.totals = dict.fromkeys(COUNTS, 0.0)
        self.update = 0
        self.numbers: dict[str, float] = {}
        self.lr = 0.0
        self._micro_batches: list[dict[str, float]] = []

    def end_micro_batch(self) -> None:
        """Keep the metrics of the current micro-batch for the update's means."""
        self._micro_batches.append(self.metrics)

    def end_update(self, update: int, strategy: Strategy, ranks: int) -> dict[str, float]:
        """Return the numbers of an update; every rank calls it, and all have the same keys.

        Means leave out NaN; seconds are sums over the micro-batches; counts are sums over the ranks.
        """
        # A micro-batch has the keys of its own task; all ranks have the same tasks in the same order.
        names = dict.fromkeys(name for metrics in self._micro_batches for name in metrics)
        means = {name: nan_mean([m.get(name, math.nan) for m in self._micro_batches]) for name in names}
        means |= {f"seconds/{name}": seconds for name, seconds in self.phase.take().items()}
        means |= {"lr": self.lr} | {name: float(count) for name, count in self.counts.items()}
        means = mean_over_ranks(means, strategy)
        self.totals = {name: means[name] * ranks for name in COUNTS}
        self._micro_batches, self.update = [], update
        self.numbers = {name: value for name, value in (means | self.totals).items() if not math.isnan(value)}
        return self.numbers

    def restore(self, totals: Mapping[str, float], first_rank: bool) -> None:
        """Go on from the counts of a checkpoint; the first rank goes on for all."""
        self.totals |= totals
        if first_rank:
            self.counts = {name: round(count) for name, count in self.totals.items()}


def mean_over_ranks(metrics: Mapping[str, float], strategy: Strategy) -> dict[str, float]:
    """Return the mean of each metric over the ranks where it is a number; one message for all of them."""
    values = torch.tensor([list(metrics.values())], dtype=torch.float32)
    sums = torch.cat([values.nan_to_num(0.0), (~values.isnan()).to(values.dtype)]).to(strategy.root_device)
    sums = strategy.reduce(sums, reduce_op="sum")
    return dict(zip(metrics, (sums[0] / sums[1]).tolist(), strict=True))


def nan_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are numbers; NaN where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
