"""Numbers that are not finite: noticed in the update in which they appear, on all ranks together."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from vcr1.errors import UserError
from vcr1.policy.weights.finite import first_nonfinite

log = logging.getLogger(__name__)

QUANTITIES = ("reward", "sampled log-probs", "reference log-probs", "log-probs", "loss", "gradient")
"""Where numbers are looked at, in the order in which an update computes them."""

CHOICES = ("skip", "stop")
MOST_SKIPPED = 5
"""Updates in a row that may be skipped: after so many, the run is not going to recover."""

ADVICE = "lower algorithm.lr, set trainer.gradient_clip_val=1.0, or look at the reward and the data"


class FiniteGuard:
    """Skips, or ends the run at, an update whose numbers are not finite.

    Each micro-batch hands over what it has computed; the update asks once, over all ranks, so that all ranks
    do the same. Nothing waits for the device before.

    Args:
        on_nonfinite: ``skip`` leaves the update out and counts it, and ends the run after
            :data:`MOST_SKIPPED` in a row; ``stop`` ends it at once.

    Raises:
        UserError: another choice.
    """

    def __init__(self, on_nonfinite: str = "skip") -> None:
        if on_nonfinite not in CHOICES:
            raise UserError(f"algorithm.on_nonfinite={on_nonfinite}; choose from {', '.join(CHOICES)}")
        self.on_nonfinite = on_nonfinite
        self.in_a_row = 0
        self._bad: dict[str, Tensor] = {}

    def look(self, quantity: str, values: Tensor | None, missing: bool = False) -> None:
        """Look at the numbers of a micro-batch.

        Args:
            quantity: one of :data:`QUANTITIES`.
            values: of any shape; None where there are none.
            missing: whether NaN stands for a value that is missing, as a reward whose judge failed.
        """
        if values is None:
            return
        values = values.detach()
        bad = (values.isinf() if missing else ~values.isfinite()).any()
        before = self._bad.get(quantity)
        self._bad[quantity] = bad if before is None else before | bad

    def refuses(self, norm: Tensor, update: int, strategy: Strategy) -> bool:
        """Return whether an update has to be left out; every rank calls it, and all get the same answer.

        Args:
            norm: of the update's gradient, the same on all ranks.
            update: its number, for messages.
            strategy: adds up over the ranks.

        Raises:
            UserError: it has, and the run is to end for that, or has left out too many in a row.
        """
        self.look("gradient", norm)
        device = strategy.root_device
        clean = torch.zeros((), dtype=torch.bool, device=device)
        flags = torch.stack([self._bad.get(name, clean).to(device) for name in QUANTITIES]).float()
        self._bad = {}
        flags = strategy.reduce(flags, reduce_op="sum")
        quantity = next((name for name, flag in zip(QUANTITIES, flags.tolist(), strict=True) if flag), None)
        if quantity is None:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        said = f"update {update}: the {quantity} is not finite"
        if self.on_nonfinite == "stop":
            raise UserError(f"{said}, and algorithm.on_nonfinite=stop ends the run: {ADVICE}")
        if self.in_a_row >= MOST_SKIPPED:
            raise UserError(
                f"{said}, and so were the {MOST_SKIPPED - 1} updates before it, which were skipped: {ADVICE}"
            )
        log.warning("%s: the update is skipped", said)
        return True


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the Euclidean norm of all gradients, over all ranks where they are spread; 0 without any."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Any = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def check_weights_are_finite(model: nn.Module, strategy: Strategy, update: int) -> None:
    """Refuse to go on with weights that are not finite; every rank calls it.

    Args:
        model: whose weights are looked at.
        strategy: of the run.
        update: number of the update that has just been made; 0 before the first one.

    Raises:
        UserError: they are not, on any rank.
    """
    name = first_nonfinite([*model.named_parameters(), *model.named_buffers()])
    if strategy.reduce_boolean_decision(name is None, all=True):
        return
    found = f"{name or 'a weight of another rank'} holds numbers that are not finite"
    if update == 0:
        raise UserError(f"{found} before anything was trained: take another model.path or checkpoint")
    raise UserError(
        f"update {update}: {found}; nothing is saved of them. Go on from the last checkpoint "
        f"(ckpt_path=auto): {ADVICE}"
    )
