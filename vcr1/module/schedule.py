"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vcr1.errors import UserError

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


def warmup_updates(warmup_steps: float, total: float) -> int:
    """Return the updates of a warm-up: a whole number of them, or a share below 1 of a run's ``total``.

    Raises:
        UserError: a share of a run without an end.
    """
    if warmup_steps >= 1 or warmup_steps == 0:
        return int(warmup_steps)
    if not math.isfinite(total):
        raise UserError(
            f"algorithm.warmup_steps={warmup_steps} is a share of the run, which has no end: give a number "
            f"of updates, or trainer.max_steps or max_epochs"
        )
    return math.ceil(warmup_steps * total)


def check_optimizer(
    betas: Sequence[Any], weight_decay: Any, warmup_steps: Any, schedule: Any, final_lr: Any
) -> None:
    """Refuse settings of AdamW and its learning rate that cannot be.

    Raises:
        UserError: names the setting and what it may be.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"algorithm.schedule={schedule}; choose from {', '.join(SCHEDULES)}")
    if not _is_number(warmup_steps) or warmup_steps < 0 or (warmup_steps > 1 and warmup_steps % 1):
        raise UserError(
            f"algorithm.warmup_steps={warmup_steps} must be a whole number of updates, or a share of the run "
            f"below 1"
        )
    if not _is_number(final_lr) or not 0 <= final_lr <= 1:
        raise UserError(f"algorithm.final_lr={final_lr} must be a share of algorithm.lr, 0..1")
    if not _is_number(weight_decay) or weight_decay < 0:
        raise UserError(f"algorithm.weight_decay={weight_decay} must be a number, 0 or more")
    pair = list(betas) if isinstance(betas, Sequence) else []
    if len(pair) != 2 or not all(_is_number(beta) and 0 <= beta < 1 for beta in pair):
        raise UserError(f"algorithm.betas={betas} must be two numbers of at least 0 and below 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
