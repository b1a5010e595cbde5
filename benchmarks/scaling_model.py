"""How long an update of GRPO takes on many GPUs, on paper.

What is hidden: the gathers of layers and blocks, and the reduction of their gradients, run beside the compute
of the same phase; of these, only what the compute does not cover is exposed. The root's gathers come before
anything can be computed, and a rollout gathers the language model before its first token: these are exposed
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import NamedTuple

from flops import adapter_flops, head_flops, language_flops, training_flops, tree_pairs, vision_flops
from sent import SINGLE, Gathers, Weights, gathered_bytes, gathers
from shapes import Setting, Shape
from traffic import GATHER, REDUCE, SCATTER, ring_bytes
from vcr1.errors import UserError

HALF = 2
"""Bytes of a number in bf16, in which weights are gathered."""
PHASES = ("vision", "rollout", "reference", "policy forward", "backward")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is assumed of the machines, and of what a GPU is given.

    Attributes:
        node: GPUs in a node.
        peak: dense bf16 TFLOP/s of a GPU.
        utilisation: share of it that passes over whole prompts reach, by the operations they need.
        nvlink: GB/s that a GPU sends within its node.
        network: GB/s that a network card sends; one belongs to each GPU.
        rails: network cards of a node over which a collective of all ranks goes.
        hop_in: microseconds of a ring's step within a node.
        hop_out: microseconds of a step between nodes.
        decode_ms: milliseconds of a decoding step of the whole group.
        spread: standard deviation of the completions' lengths in tokens, around the setting's length; a rank
            decodes as long as its longest, all wait for the longest of all. 0: all have the setting's length.
        prompts: of a GPU in an update, in one micro-batch; a decoding step takes as long for all of them.
    """

    node: int = 8
    peak: float = 989.0
    utilisation: float = 0.4
    nvlink: float = 300.0
    network: float = 40.0
    rails: int = 8
    hop_in: float = 3.0
    hop_out: float = 10.0
    decode_ms: float = 30.0
    spread: float = 0.0
    prompts: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UserError: a rate or a number that is not positive, or a negative time.
        """
        for field in fields(self):
            value, times = getattr(self, field.name), ("hop_in", "hop_out", "decode_ms", "spread")
            if value < 0 or (value == 0 and field.name not in times):
                raise UserError(f"--{field.name} {value:g} is out of range")

    def compute(self, flops: float) -> float:
        """Seconds for so many operations."""
        return flops / (self.peak * 1e12 * self.utilisation)

    def packed(self, kind: str, size: float, ranks: int, calls: float) -> float:
        """Seconds of ``calls`` collectives over ``size`` bytes together, among ranks that fill their nodes.

        A ring that runs through all nodes crosses from one to the next once; with a ring for each network
        card, a card carries its part of the bytes.
        """
        if ranks == 1:
            return 0.0
        sent = ring_bytes(kind, size, ranks) / 1e9
        nodes = -(-ranks // self.node)
        hops = (ranks - 1) * self.hop_in
        rate = self.nvlink
        if nodes > 1:
            hops = (ranks - nodes) * self.hop_in + nodes * self.hop_out
            rate = min(rate, self.rails * self.network)
        return sent / rate + (2 if kind == REDUCE else 1) * calls * hops / 1e6

    def across(self, size: float, nodes: int, calls: float) -> float:
        """Seconds of all-reduces among the GPUs of one place in every node, each with its own card."""
        sent = ring_bytes(REDUCE, size, nodes) / 1e9
        return sent / self.network + 2 * calls * (nodes - 1) * self.hop_out / 1e6

    def decode(self, length: int, completions: int) -> float:
        """Seconds until the longest of so many completions is there."""
        longest = NormalDist().inv_cdf((completions - 0.375) / (completions + 0.25))
        return (length + self.spread * longest) * self.decode_ms / 1e3


class Step(NamedTuple):
    """Seconds of an update.

    Attributes:
        compute: of passes over prompts and completions.
        decode: of decoding.
        hidden: of communication beside compute.
        alone: of communication that nothing runs beside.
        uncovered: of communication that takes longer than the compute it runs beside.
        sent: GB that a rank sends.
    """

    compute: float
    decode: float
    hidden: float
    alone: float
    uncovered: float
    sent: float

    @property
    def exposed(self) -> float:
        """Communication that compute waits for."""
        return self.alone + self.uncovered

    @property
    def seconds(self) -> float:
        """All that takes time."""
        return self.compute + self.decode + self.exposed


def phase_flops(shape: Shape, setting: Setting, rank: int | None) -> dict[str, int]:
    """Operations of each phase but decoding, for one prompt on one GPU."""
    prompt, group, length = setting.prompt(shape.vision), setting.group, setting.length
    tokens = prompt + group * length
    forward = language_flops(shape, tokens, tree_pairs(prompt, group, length))
    forward += head_flops(shape, group * length)
    vision = vision_flops(shape, setting.grid)
    found = {
        "vision": vision,
        "reference": forward + (vision if rank is None else 0),
        "policy forward": forward + (0 if rank is None else adapter_flops(shape, tokens, rank)),
    }
    found["backward"] = training_flops(shape, setting, shared=True, rank=rank) - sum(found.values())
    found["rollout"] = language_flops(shape, prompt, tree_pairs(prompt, 0, 0)) + head_flops(shape, 1)
    return found


def step(
    weights: Weights, flops: Mapping[str, int], setting: Setting, way: str, ranks: int, assumed: Assumptions
) -> Step:
    """An update, gathering in bf16 and reducing in float32.

    Args:
        weights: of the policy.
        flops: phase -> operations for one prompt.
        setting: the prompt and its group.
        way: ``fsdp`` over all ranks, ``hybrid`` (within nodes, replicated across), or ``ddp``.
        ranks: GPUs.
        assumed: of them.
    """
    if way == "ddp":
        beside, alone, sent = {}, 0.0, ring_bytes(REDUCE, SINGLE * weights.trained, ranks)
        beside["backward"] = assumed.packed(REDUCE, SINGLE * weights.trained, ranks, 1)
    else:
        beside, alone, sent = _sharded(weights, way, ranks, assumed)
    compute = {phase: assumed.compute(flops[phase] * assumed.prompts) for phase in PHASES}
    uncovered = sum(max(0.0, seconds - compute[phase]) for phase, seconds in beside.items())
    return Step(
        compute=sum(compute.values()),
        decode=assumed.decode(setting.length, setting.group * assumed.prompts * ranks),
        hidden=sum(beside.values()) - uncovered,
        alone=alone,
        uncovered=uncovered,
        sent=sent / 1e9,
    )


def _sharded(
    weights: Weights, way: str, ranks: int, assumed: Assumptions
) -> tuple[dict[str, float], float, float]:
    """Phase -> seconds that may be hidden; seconds that cannot be; bytes that a rank sends."""
    shards = min(ranks, assumed.node) if way == "hybrid" else ranks
    beside, alone, sent = {}, 0.0, 0.0
    for phase, times in gathers(weights).items():
        sent += ring_bytes(GATHER, gathered_bytes(weights, times, HALF), shards)
        root = gathered_bytes(weights, Gathers(times.root, 0, 0), HALF)
        rest = gathered_bytes(weights, Gathers(0, times.language, times.vision), HALF)
        calls = times.language * weights.layers + times.vision * weights.blocks
        alone += assumed.packed(GATHER, root, shards, times.root)
        seconds = assumed.packed(GATHER, rest, shards, calls)
        if phase == "rollout":
            alone += seconds
        else:
            beside[phase] = seconds
    groups = weights.layers if weights.adapted else weights.layers + weights.blocks + 2
    gradients = SINGLE * weights.trained
    beside["backward"] += assumed.packed(SCATTER, gradients, shards, groups)
    sent += ring_bytes(SCATTER, gradients, shards)
    if shards < ranks:
        nodes = ranks // shards
        beside["backward"] += assumed.across(gradients / shards, nodes, groups)
        sent += ring_bytes(REDUCE, gradients / shards, nodes)
    return beside, alone, sent
