"""The log of one update: its micro-batches' metrics, averaged over micro-batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.strategies import Strategy

from vcr1.module.phases import PhaseTimer

COUNTS = ("lost_samples", "unjudged", "skipped_micro_batches", "skipped_updates")
"""Numbers that are added up from the beginning of a run, over all ranks."""

FLOAT = torch.float32
"""Named, as half-precision training changes the default type: it would cut counts and means."""

Metrics = dict[str, float | None]
"""Name -> number, which may be NaN or infinite; None where there is no value."""


class UpdateLog:
    """Collect the metrics of an update's micro-batches.

    Attributes:
        phase: seconds by phase.
        metrics: of the current micro-batch.
        of_update: of the current update, the same on all ranks.
        counts: this rank's counts of :data:`COUNTS`.
        totals: counts of all ranks at the last update.
        update: number of the last logged update.
        numbers: of that update.
        lr: learning rate of the current update.
    """

    def __init__(self) -> None:
        self.phase = PhaseTimer()
        self.metrics: Metrics = {}
        self.of_update: dict[str, float] = {}
        self.counts = dict.fromkeys(COUNTS, 0)
        self.totals = dict.fromkeys(COUNTS, 0.0)
        self.update = 0
        self.numbers: dict[str, float] = {}
        self.lr = 0.0
        self._micro_batches: list[Metrics] = []

    def end_micro_batch(self) -> None:
        """Keep the metrics of the current micro-batch for the update's means."""
        self._micro_batches.append(self.metrics)

    def end_update(self, update: int, strategy: Strategy, ranks: int) -> dict[str, float]:
        """Return the numbers of an update; every rank calls it, and all have the same keys.

        Means leave out what has no value; seconds are sums over micro-batches; counts are sums over ranks.
        """
        # A micro-batch has the keys of its own task; all ranks have the same tasks in the same order.
        names = dict.fromkeys(name for metrics in self._micro_batches for name in metrics)
        means: Metrics = {name: known_mean([m.get(name) for m in self._micro_batches]) for name in names}
        means |= {f"seconds/{name}": seconds for name, seconds in self.phase.take().items()}
        means |= {name: float(count) for name, count in self.counts.items()}
        numbers = mean_over_ranks(means, strategy)
        self.totals = {name: numbers[name] * ranks for name in COUNTS}
        self.numbers = numbers | {"lr": self.lr} | self.of_update | self.totals
        self._micro_batches, self.of_update, self.update = [], {}, update
        return self.numbers

    def restore(self, totals: Mapping[str, float], first_rank: bool) -> None:
        """Go on from the counts of a checkpoint; the first rank goes on for all."""
        self.totals |= totals
        if first_rank:
            self.counts = {name: round(count) for name, count in self.totals.items()}


def mean_over_ranks(metrics: Metrics, strategy: Strategy) -> dict[str, float]:
    """Return the mean of each metric over the ranks that have a value; one message for all of them."""
    values = torch.tensor([[0.0 if value is None else value for value in metrics.values()]], dtype=FLOAT)
    known = torch.tensor([[float(value is not None) for value in metrics.values()]], dtype=FLOAT)
    sums = torch.cat([values, known]).to(strategy.root_device)
    totals, counts = strategy.reduce(sums, reduce_op="sum").tolist()
    columns = zip(metrics, totals, counts, strict=True)
    return {name: total / count for name, total, count in columns if count}


def known_mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that there are; None where there are none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def judged_mean(values: Sequence[float]) -> float | None:
    """Return the mean of the values that are numbers: NaN says that a judge has failed."""
    return known_mean([None if math.isnan(value) else value for value in values])


def known(values: Mapping[str, float]) -> Metrics:
    """Return numbers with None for NaN, where NaN says that a judge has failed."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}
