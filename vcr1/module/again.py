"""A backward pass that ran out of memory, finished in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Reached = dict[nn.Parameter, tuple[int, int]]


def marks(parameters: Iterable[nn.Parameter]) -> Reached:
    """Of which tensor, in which version, each gradient consists now: it tells whether one was added to."""
    return {
        parameter: (0, 0) if parameter.grad is None else (id(parameter.grad), parameter.grad._version)
        for parameter in parameters
    }


def finish_backward(before: Reached, loss: Callable[[], Tensor]) -> None:
    """Bring the gradients of a broken-off backward pass to their end.

    A parameter's gradient of one pass is added up apart and then put to what it had: it has got all of it or
    nothing. So only those that were not reached are left, and nothing is counted twice.

    Args:
        before: the parameters' marks before the pass.
        loss: computes the loss once more.
    """
    now = marks(before)
    left = [parameter for parameter in before if now[parameter] == before[parameter]]
    if left:
        torch.autograd.backward(loss(), inputs=left)
