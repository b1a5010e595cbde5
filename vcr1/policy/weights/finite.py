"""Weights that are no numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vcr1.errors import UserError


@torch.no_grad()
def first_nonfinite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a number that is not finite.

    Of weights that are spread over ranks, every rank looks at its own part.
    """
    local = [(name, tensor.to_local() if isinstance(tensor, DTensor) else tensor) for name, tensor in named]
    tensors = [(name, tensor) for name, tensor in local if tensor.is_floating_point() and tensor.numel()]
    # The largest |x| is finite only where all are: one number for each tensor, and one wait for a device.
    largest: dict[torch.device, list[Tensor]] = {}
    for _, tensor in tensors:
        norm = torch.linalg.vector_norm(tensor.detach(), torch.inf)
        largest.setdefault(tensor.device, []).append(norm.float())
    finite = {device: iter(torch.stack(norms).isfinite().tolist()) for device, norms in largest.items()}
    return next((name for name, tensor in tensors if not next(finite[tensor.device])), None)


def check_finite(state: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Refuse weights that are not finite.

    Args:
        state: names and tensors.
        what: what is to be done with them, as the message says it.

    Raises:
        UserError: names the first one.
    """
    if (name := first_nonfinite(state)) is not None:
        raise UserError(f"{what}: {name} holds numbers that are not finite; take an earlier checkpoint")
