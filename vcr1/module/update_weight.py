"""What the micro-batches of an update weigh: so that its gradient does not depend on how it is cut."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
import torch
from torch import Tensor, nn

from vcr1.module.update_log import FLOAT


class UpdateWeight:
    """Add up the weights of an update's micro-batches, and make their gradients the gradient of one mean.

    Attributes:
        micro_batches: those whose gradients the update has so far.
    """

    def __init__(self) -> None:
        self.micro_batches = 0
        self._sums: Tensor | None = None
        self._proposed: Tensor | None = None

    def propose(self, loss: Tensor, weight: Tensor) -> None:
        """Note the loss, a mean, and the weight of the current micro-batch."""
        own = weight.detach().to(FLOAT)
        self._proposed = torch.stack([loss.detach().to(FLOAT) * own, own])

    def accept(self) -> None:
        """Count the current micro-batch: its gradients are there."""
        self.micro_batches += 1
        if self._proposed is not None:
            self._sums = self._proposed if self._sums is None else self._sums + self._proposed
        self._proposed = None

    def normalise(
        self, parameters: Iterable[nn.Parameter], unit: float, trainer: L.Trainer
    ) -> dict[str, float]:
        """Scale the gradients of an update; every rank calls it.

        Lightning divides each loss by ``accumulate_grad_batches``, also where an epoch ends with fewer, and
        gradients are means over ranks. Both are undone here.

        Args:
            parameters: whose gradients are scaled.
            unit: in which micro-batches were weighed.
            trainer: knows the ranks and the accumulation.

        Returns:
            The update's loss by its name; nothing where no rank has learnt from anything.
        """
        device = trainer.strategy.root_device
        sums = torch.zeros(2, device=device, dtype=FLOAT) if self._sums is None else self._sums.to(device)
        total, weight = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        if not weight:
            return {}
        factor = trainer.accumulate_grad_batches * trainer.world_size * unit / weight
        if factor != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        return {"loss": total / weight}
