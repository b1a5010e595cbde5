"""Bytes on one GPU, item by item, at the moments of a step when most of them are in use."""

from __future__ import annotations

from dataclasses import dataclass

from vcr1.planning.activations import (
    cache_bytes,
    decode_bytes,
    head_bytes,
    head_gradient_bytes,
    language_block,
    language_bytes,
    vision_bytes,
)
from vcr1.planning.shape import ModelShape
from vcr1.planning.workload import FLOAT, PlannedSharding, Precision, WeightSizes, Workload

MOMENTS = ("rollout", "reference", "forward", "backward", "unwound", "update")
"""Answers are sampled, or those of an evaluation; the reference scores them; the policy does, at its end; the
way back begins; it has come to the vision tower; the optimizer's turn."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        items: what the bytes are for -> moment -> bytes.
    """

    items: dict[str, dict[str, int]]

    def at(self, moment: str) -> int:
        """Return bytes in use at a moment."""
        return sum(bytes_.get(moment, 0) for bytes_ in self.items.values())

    @property
    def peak(self) -> int:
        """Return bytes in use at the moment with the most."""
        return max(self.at(moment) for moment in MOMENTS)


@dataclass(frozen=True, slots=True)
class Setup:
    """All that memory and work follow from.

    Attributes:
        shape: the model.
        weights: its parameters.
        load: the largest micro-batch.
        precision: bytes of numbers.
        sharding: how the run is spread.
        checkpointing: blocks are computed again in the backward pass.
    """

    shape: ModelShape
    weights: WeightSizes
    load: Workload
    precision: Precision
    sharding: PlannedSharding
    checkpointing: bool


def memory(setup: Setup) -> Memory:
    """Return bytes on one GPU."""
    return Memory(state(setup) | activations(setup))


def state(setup: Setup) -> dict[str, dict[str, int]]:
    """Return what lives as long as the run: weights, gradients, moments, reference, and copies of them."""
    weights, sharding, load = setup.weights, setup.sharding, setup.load
    wide = setup.precision.weights
    trained = (weights.trained * wide + weights.adapters * FLOAT) // sharding.shards
    all_weights = (weights.total * wide + weights.adapters * FLOAT) // sharding.shards
    gradients = trained * (1 + sharding.buckets)
    kept = sharding.kept or load.micro_batches > 1 or len(load.passes()) > 1
    resident = 0 if sharding.offload else 1
    copied = copies(setup)
    return {
        "weights": dict.fromkeys(MOMENTS, resident * all_weights),
        # Those of the update before are cleared after the forward, just before the new ones come.
        "gradients": dict.fromkeys(MOMENTS, resident * gradients)
        | ({} if kept else {"backward": resident * (gradients - trained)}),
        "optimizer": dict.fromkeys(MOMENTS, resident * 2 * trained)
        # On a GPU all parameters are updated at once, with a temporary of their size.
        | {"update": resident * trained * (3 if sharding.on_gpu else 2)},
        "reference": dict.fromkeys(MOMENTS, resident * reference_bytes(setup)),
        "gathered, cast": copied,
    }


def reference_bytes(setup: Setup) -> int:
    """A second copy of all weights; none without a reference, or where it is the base under adapters."""
    if not setup.load.reference or setup.weights.adapters:
        return 0
    return setup.weights.total * setup.precision.weights // setup.sharding.shards


def copies(setup: Setup) -> dict[str, int]:
    """Return weights beside those that are stored: gathered from other ranks, or cast for matrix products."""
    shape, weights, precision = setup.shape, setup.weights, setup.precision
    block = shape.text.block_parameters
    if setup.sharding.shards > 1:
        # What lies outside of blocks is gathered as a whole: both ends of the model, and the mergers.
        root = shape.vocabulary * shape.text.hidden * (1 if shape.tied else 2) + shape.merger_parameters
        gathered = (2 * block + root) * precision.stream
        # Gradients are reduced in float32, of a block and the one before, in the end of the root.
        reduced = (precision.stream + FLOAT) * (weights.trained > 0)
        return dict.fromkeys(MOMENTS[:-1], gathered) | {
            "backward": gathered + 2 * block * reduced,
            "unwound": gathered + root * reduced,
        }
    if not precision.autocast:
        return {}
    # Trained weights are cast once and kept as long as the forward; others anew in every block, where the
    # graph keeps them.
    cast = weights.trained * precision.compute
    others = weights.total - weights.trained
    held = 0 if setup.checkpointing else others * precision.compute
    passing = block * precision.compute
    return {
        "rollout": cast + others * precision.compute,  # decoding has all of them in the type it computes with
        "reference": cast + passing,
        "forward": cast + held + passing,
        "backward": (0 if setup.checkpointing else cast + held) + passing,
        "unwound": passing,
    }


def activations(setup: Setup) -> dict[str, dict[str, int]]:
    """Return what a step computes."""
    shape, weights, load, precision = setup.shape, setup.weights, setup.load, setup.precision
    patches = load.prompts * load.vision_tokens * shape.merge**2
    seen = vision_bytes(shape, weights, precision, patches, setup.checkpointing)
    asked = load.eval_prompts * load.vision_tokens * shape.merge**2
    unseen = vision_bytes(shape, weights, precision, asked, setup.checkpointing)
    passes = load.passes()
    largest = max(passes, key=lambda one: one[0] + sum(one[1]))
    read = language_bytes(shape, weights, precision, largest, setup.checkpointing)
    answered = sum(largest[1])
    prompts, group = load.decoded
    # Features of the update's other micro-batches wait for their turn, where the tower does not change.
    waiting = 0 if weights.vision_trained else (load.micro_batches - 1) * load.prompts * load.vision_tokens
    waiting *= shape.text.hidden * precision.stream * load.samples
    prefill = load.prompt * language_block(shape.text, weights, precision).passing
    decoding = decode_bytes(shape, precision, prompts * group, load)
    # A second vision tower looks, where the reference has one of its own.
    again = seen.passing if weights.vision_trained else 0
    logits = head_bytes(shape, answered, precision)
    found = {
        "vision": {
            "rollout": (seen.kept if load.samples else unseen.passing) + waiting,
            "reference": seen.kept + waiting,
            "forward": seen.kept + waiting,
            "backward": seen.kept + waiting,
            "unwound": seen.kept + seen.returning,
        },
        "language": {
            "rollout": max(prefill, decoding),
            "reference": read.passing,
            "forward": read.kept if len(passes) == 1 else read.passing,
            "backward": read.kept + read.returning,
        },
        "KV cache": {"rollout": cache_bytes(shape, precision, prompts, group, load) + max(prefill, decoding)},
        "logits": {
            "reference": logits,
            "forward": logits,
            "backward": head_gradient_bytes(shape, weights, answered, precision),
        },
    }
    if load.reference:
        language = found["language"]
        language["reference"] = max(language["reference"], again - logits)
    else:
        for moments in found.values():
            moments.pop("reference", None)
    return found
