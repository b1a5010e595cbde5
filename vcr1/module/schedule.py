"""The learning rate over a run."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine")


def lr_factor(update: int, warmup: int, total: float, schedule: str, final: float) -> float:
    """Return share of the peak learning rate at an update, counted from 0.

    Rises linearly over ``warmup`` updates, then stays, or falls to ``final`` at ``total`` in a line or a
    half cosine.
    """
    if update < warmup:
        return (update + 1) / warmup
    if schedule == "constant" or not math.isfinite(total):
        return 1.0
    progress = min(1.0, (update - warmup) / max(1.0, total - warmup))
    height = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return final + (1 - final) * height
