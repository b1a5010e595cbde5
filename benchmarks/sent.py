"""What an update of GRPO sends under FSDP, by formula.

A policy has three kinds of FSDP groups: each language layer, each vision block, and the root, which holds the
rest (embeddings, head, merger). Each of ``vision``, ``rollout`` and ``logprobs`` is a forward of the root,
and gathers it again. ``tests/benchmarks/test_scaling.py`` holds these numbers against the bytes that runs on
two ranks send.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

from shapes import Shape, build_model
from traffic import GATHER, SCATTER, ring_bytes
from vcr1.policy import LoRA
from vcr1.policy.families import FAMILIES
from vcr1.policy.weights.lora import adapt

SINGLE = 4
"""Bytes of a number in float32, in which gradients are reduced."""


class Gathers(NamedTuple):
    """How often a phase gathers the root, the language layers and the vision blocks."""

    root: float
    language: float
    vision: float


FULL = {
    "vision": Gathers(1, 0, 1),
    "rollout": Gathers(1, 1, 0),
    "reference": Gathers(2, 1, 1),  # its own tower, then its log-probs
    "policy forward": Gathers(1, 1, 0),
    "backward": Gathers(2, 1, 1),  # and one layer in vain, see `gathers`
}
ADAPTERS = {
    "vision": Gathers(1, 0, 1),
    "rollout": Gathers(1, 1, 0),
    "reference": Gathers(1, 1, 0),  # the frozen tower's features serve both
    "policy forward": Gathers(1, 1, 0),
    "backward": Gathers(1, 1, 0),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters of a policy by FSDP group.

    Attributes:
        root: outside of layers and blocks.
        language: of all language layers, adapters included.
        vision: of all vision blocks.
        trained: that get a gradient.
        layers: language layers.
        blocks: vision blocks.
        adapted: whether adapters are trained.
    """

    root: int
    language: int
    vision: int
    trained: int
    layers: int
    blocks: int
    adapted: bool

    @property
    def total(self) -> int:
        """All parameters."""
        return self.root + self.language + self.vision


@cache
def weights_of(shape: Shape, rank: int | None) -> Weights:
    """Count the parameters of a shape, with adapters of a rank where one is given; takes no memory."""
    model = build_model(shape, torch.device("meta"), torch.float32)
    if rank is not None:
        adapt(model, LoRA(rank=rank), FAMILIES["qwen2_5_vl"])
    core = model.model
    language, vision = (
        sum(weight.numel() for weight in blocks.parameters())
        for blocks in (core.language_model.layers, core.visual.blocks)
    )
    total = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    counts = len(core.language_model.layers), len(core.visual.blocks)
    return Weights(total - language - vision, language, vision, trained, *counts, rank is not None)


def gathers(weights: Weights, forwards: int | None = None) -> dict[str, Gathers]:
    """How often each phase gathers.

    Args:
        weights: of the policy.
        forwards: of a rollout that gathers block by block for each of them; None where it gathers once.
    """
    found = dict(ADAPTERS if weights.adapted else FULL)
    if forwards is not None:
        found["rollout"] = Gathers(1, forwards, 0)
    if not weights.adapted:
        # FSDP2 prefetches by the order of all forwards, the rollout's too: as the backward pass comes to the
        # vision tower, it gathers the rollout's last layer, which nothing needs.
        found["backward"] = Gathers(2, 1 + 1 / weights.layers, 1)
    return found


def gathered_bytes(weights: Weights, times: Gathers, itemsize: int) -> float:
    """Bytes that a phase's gathers put together on each rank."""
    numbers = times.root * weights.root + times.language * weights.language + times.vision * weights.vision
    return itemsize * numbers


def expected_bytes(
    weights: Weights, ranks: int, itemsize: int, forwards: int | None = None
) -> dict[str, dict[str, float]]:
    """Phase -> kind -> bytes that a rank sends under FSDP over all ranks; without the few of metrics."""
    found = {
        phase: {GATHER: ring_bytes(GATHER, gathered_bytes(weights, times, itemsize), ranks)}
        for phase, times in gathers(weights, forwards).items()
    }
    found["backward"][SCATTER] = ring_bytes(SCATTER, SINGLE * weights.trained, ranks)
    return found
