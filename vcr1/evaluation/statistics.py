"""How sure a metric is: bootstrap over samples; and what several draws of one sample are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
_CELLS = 1 << 22  # of one block of resamples x samples: 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its confidence interval.

    Attributes:
        value: mean over the samples that have a number; NaN where none has.
        low: lower end of the 95 % percentile interval.
        high: its upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two runs on the same samples.

    Attributes:
        value: mean of the second less that of the first.
        low: lower end of the 95 % interval.
        high: its upper end.
        p: how often resampled differences lie on the other side of 0, both sides together; at most 1.
    """

    value: float
    low: float
    high: float
    p: float


def estimates(
    columns: Mapping[str, Sequence[float]],
    weights: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Estimate]:
    """Return means of several metrics over the same samples, with percentile intervals.

    Args:
        columns: metric -> value of each sample, NaN where it has none.
        weights: what each sample counts in the means; None for equal ones.
        resamples: with replacement; the same ones for all metrics.
        seed: of the resampling: the same numbers give the same intervals.

    Raises:
        ValueError: no samples.
    """
    if not columns:
        return {}
    values = np.array(list(columns.values()), dtype=np.float64).T  # [samples, metrics]
    counts = np.ones(len(values)) if weights is None else np.array(weights, dtype=np.float64)
    draws = np.concatenate(list(_resampled_means(values, counts, resamples, seed)))
    found = {}
    for place, name in enumerate(columns):
        low, high = _interval(draws[:, place])
        found[name] = Estimate(nan_mean(columns[name], weights), low, high)
    return found


def difference(
    first: Sequence[float],
    second: Sequence[float],
    weights: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Paired bootstrap of two runs: the same samples are drawn for both.

    Args:
        first: value of each sample.
        second: values of the same samples in the same order; where either is NaN the pair is left out.
        weights: what each sample counts in the means; None for equal ones.
        resamples: with replacement.
        seed: of the resampling.

    Raises:
        ValueError: columns of different length, or no pair.
    """
    rows = zip(first, second, weights or [1.0] * len(first), strict=True)
    pairs = [(b - a, weight) for a, b, weight in rows if not (math.isnan(a) or math.isnan(b))]
    if not pairs:
        raise ValueError("no pairs to compare")
    gaps, counts = map(list, zip(*pairs, strict=True))
    resampled = _resampled_means(np.array(gaps)[:, None], np.array(counts), resamples, seed)
    draws = np.concatenate(list(resampled))[:, 0]
    low, high = _interval(draws)
    side = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (resamples + 1))
    return Difference(nan_mean(gaps, counts), low, high, p)


def differences(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    weights: Sequence[float] | None = None,
) -> dict[str, dict[str, float]]:
    """Return both means and their paired difference, of the metrics that both have.

    Args:
        first: metric -> value of each sample.
        second: values of the same samples in the same order.
        weights: of the samples; None for equal ones.

    Returns:
        Metric -> ``first``, ``second``, ``difference`` with its ``low`` and ``high``, and ``p``; a metric
        without any pair is left out.
    """
    found = {}
    for name in first:
        if name not in second:
            continue
        pairs = zip(first[name], second[name], strict=True)
        if all(math.isnan(a) or math.isnan(b) for a, b in pairs):
            continue
        gap = asdict(difference(first[name], second[name], weights))
        means = {"first": nan_mean(first[name], weights), "second": nan_mean(second[name], weights)}
        found[name] = means | {"difference" if key == "value" else key: one for key, one in gap.items()}
    return found


def _resampled_means(
    values: NDArray[np.float64], weights: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Blocks ``[r, metrics]`` of means over resampled rows of ``[samples, metrics]``; NaN is left out.

    ``weights``: ``[samples]``, what each counts in a mean.
    """
    count = len(values)
    if count == 0:
        raise ValueError("mean of no values")
    rng = np.random.default_rng(seed)
    known = np.where(np.isnan(values), 0.0, weights[:, None])
    filled = np.where(np.isnan(values), 0.0, values * weights[:, None])
    rows = max(1, _CELLS // count)
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), count)
        # How often each sample is drawn, instead of the samples themselves: then a mean is a product.
        drawn = rng.integers(0, count, size)
        flat = drawn + count * np.arange(size[0])[:, None]
        times = np.bincount(flat.ravel(), minlength=size[0] * count).reshape(size).astype(np.float64)
        with np.errstate(invalid="ignore"):
            yield (times @ filled) / (times @ known)


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle 95 % of resampled means; NaN where there are none."""
    numbers = draws[~np.isnan(draws)]
    if not len(numbers):
        return math.nan, math.nan
    # Rounded, as products may differ in their last bits from one machine's library to the next.
    low, high = np.quantile(numbers, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), 9), round(float(high), 9)


def nan_mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return mean of the values that are numbers; NaN where none is.

    Args:
        values: one for each sample.
        weights: what each counts; None for equal ones.
    """
    numbers = [
        (value * weight, weight)
        for value, weight in zip(values, weights or [1.0] * len(values), strict=True)
        if not math.isnan(value)
    ]
    total = math.fsum(weight for _, weight in numbers)
    return math.fsum(value for value, _ in numbers) / total if numbers else math.nan


def pass_at_k(right: int, draws: int, k: int) -> float:
    """Return chance that one of ``k`` draws is right, unbiased from ``right`` of ``draws``.

    Source: arXiv 2107.03374, section 2.1.

    Raises:
        ValueError: more than there were.
    """
    if not 0 <= right <= draws or not 1 <= k <= draws:
        raise ValueError(f"{right} right of {draws} draws, k={k}")
    return 1.0 - math.comb(draws - right, k) / math.comb(draws, k)


def best_at_k(values: Sequence[float], k: int) -> float:
    """Expected best of ``k`` of the draws, taken without replacement; `pass_at_k` where values are 0 and 1.

    NaN draws are left out; NaN where fewer than ``k`` are left.
    """
    numbers = sorted(value for value in values if not math.isnan(value))
    if len(numbers) < k:
        return math.nan
    # The i-th smallest (from 0) is the best of as many choices as take the other k - 1 from below it.
    total = math.comb(len(numbers), k)
    return math.fsum(math.comb(place, k - 1) * value for place, value in enumerate(numbers)) / total
