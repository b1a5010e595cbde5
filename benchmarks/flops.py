"""Floating-point operations that a model's passes need, by formula.

Matrix products alone count, a multiply-add as two operations; norms, activations and rotations are below
one percent. With H the width, L layers, A heads of D, K heads of keys and values, I the width of an MLP,
V the vocabulary, T tokens and M pairs of a token and one that it looks at:

- language model: ``L · (2·T·(2·H·A·D + 2·H·K·D + 3·H·I) + 4·M·A·D)``, the last for scores and values;
- head: ``2·T·H·V``, at the tokens that predict a completion's;
- vision tower: ``2·T·p·h`` for patches of p values, then for each of its blocks (width h, MLP i)
  ``2·T·(4·h² + 3·h·i) + 4·M·h``, then ``2·(T/4)·(4h·4h + 4h·H)`` for the merger;
- adapters of rank r on the language model's projections: ``2·T·r`` times the sum of their widths.

Pairs are those that the model means: a causal prompt has P·(P+1)/2 of them, whatever a kernel computes. A
backward pass needs its forward's operations once for the gradient of the inputs (the pixels need none) and
once for that of the weights, if they are trained; scores and values have two inputs each. What checkpointing
computes a second time is not needed and does not count. A share of the chip's peak is so a model-FLOPs
utilisation (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from shapes import Setting, Shape, VisionShape


def causal_pairs(length: int) -> int:
    """Pairs of a token and one at or before it."""
    return length * (length + 1) // 2


def tree_pairs(prompt: int, group: int, length: int) -> int:
    """Pairs where a prompt exists once: each completion looks at it and at itself."""
    return causal_pairs(prompt) + group * (length * prompt + causal_pairs(length))


def window_pairs(vision: VisionShape, grid: tuple[int, int, int]) -> int:
    """Pairs of patches within the windows of all frames; windows at an edge are smaller."""
    steps, height, width = grid
    side = vision.window // vision.patch
    rows = sum(min(side, height - start) ** 2 for start in range(0, height, side))
    columns = sum(min(side, width - start) ** 2 for start in range(0, width, side))
    return steps * rows * columns


def language_flops(shape: Shape, tokens: int, pairs: int) -> int:
    """A forward of the language model without its head."""
    return shape.layers * 2 * tokens * projections(shape) + pairs_flops(shape, pairs)


def pairs_flops(shape: Shape, pairs: int) -> int:
    """Scores and values of so many pairs in all layers."""
    return shape.layers * 4 * pairs * shape.heads * shape.head_size


def projections(shape: Shape) -> int:
    """Weights of a layer's projections."""
    keys = shape.kv_heads * shape.head_size
    attention = 2 * shape.hidden * shape.heads * shape.head_size + 2 * shape.hidden * keys
    return attention + 3 * shape.hidden * shape.intermediate


def head_flops(shape: Shape, tokens: int) -> int:
    """Logits of so many tokens."""
    return 2 * tokens * shape.hidden * shape.vocabulary


def vision_flops(shape: Shape, grid: tuple[int, int, int]) -> int:
    """A forward of the vision tower with its merger, over one video."""
    vision = shape.vision
    steps, height, width = grid
    patches = steps * height * width
    full_pairs = steps * (height * width) ** 2
    windowed = vision.depth - len(vision.full)
    pairs = len(vision.full) * full_pairs + windowed * window_pairs(vision, grid)
    block = 4 * vision.hidden**2 + 3 * vision.hidden * vision.intermediate
    merged = vision.merge**2 * vision.hidden
    return (
        patch_flops(vision, grid)
        + vision.depth * 2 * patches * block
        + 4 * pairs * vision.hidden
        + 2 * (patches // vision.merge**2) * merged * (merged + shape.hidden)
    )


def patch_flops(vision: VisionShape, grid: tuple[int, int, int]) -> int:
    """The first product of the vision tower, from pixels to patches."""
    steps, height, width = grid
    return 2 * steps * height * width * vision.pixels * vision.hidden


def adapter_flops(shape: Shape, tokens: int, rank: int) -> int:
    """A forward of adapters on all of the language model's projections."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    attention = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys)
    return shape.layers * 2 * tokens * rank * (attention + 3 * (shape.hidden + shape.intermediate))


def training_flops(shape: Shape, setting: Setting, *, shared: bool, rank: int | None) -> int:
    """What the training part of a step needs: vision, reference forward, policy forward and backward.

    Args:
        shape: the model.
        setting: the micro-batch.
        shared: the prompt once for its group, or once for each completion.
        rank: of adapters on the language model; None where all weights are trained, and the reference
            is another model with a vision tower of its own.
    """
    prompt, group, length = setting.prompt(shape.vision), setting.group, setting.length
    copies = 1 if shared else group
    tokens = copies * prompt + group * length
    pairs = tree_pairs(prompt, group, length) if shared else group * causal_pairs(prompt + length)
    forward = language_flops(shape, tokens, pairs) + head_flops(shape, group * length)
    vision = copies * vision_flops(shape, setting.grid)
    if rank is None:
        pixels = copies * patch_flops(shape.vision, setting.grid)
        return 4 * (forward + vision) - pixels
    # With a frozen tower the shared form takes the same features for both passes.
    towers = vision if shared else 2 * vision
    adapters = adapter_flops(shape, tokens, rank)
    return towers + 3 * forward + pairs_flops(shape, pairs) + 3 * adapters
