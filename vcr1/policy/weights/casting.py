"""Weights in the type that a forward computes with, so that no call has to cast them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def cast_weights(parts: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Give linear layers weights in autocast's type for a while, if autocast is on. No number changes.

    Autocast casts a weight whenever it is used, and remembers the result for trained weights only. Frozen
    float32 weights would be cast for every token. The copies are dropped at the end: nothing that is trained
    shares memory with them. A layer with DoRA keeps its weights, whose norm is computed in their own type.

    Args:
        parts: of a model; not of one that is spread over ranks, whose gathered weights are in the right type.
        device: where it computes.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    dtype = torch.get_autocast_dtype(device.type)
    modules = [module for part in parts for module in part.modules()]
    theirs: list[tuple[nn.Module, str, Any]] = []
    normed = {
        id(part)
        for module in modules
        if len(getattr(module, "lora_magnitude_vector", ()))
        for part in module.modules()
    }
    for module in modules:
        if not isinstance(module, nn.Linear) or id(module) in normed:
            continue
        for name, weight in module.named_parameters(recurse=False):
            if weight.dtype == torch.float32:
                theirs.append((module, name, weight))
    try:
        for module, name, weight in theirs:
            # In its module's place alone: an embedding with the same weight keeps it.
            module._parameters[name] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        yield
    finally:
        for module, name, weight in theirs:
            module._parameters[name] = weight
