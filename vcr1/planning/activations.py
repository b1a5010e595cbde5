"""Bytes of what a forward computes and keeps: blocks, vision, language model, logits, keys and values.

What is counted for a block is what its operations keep for their backward pass, in the form in which
transformers writes them; the tests hold the sums against measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from vcr1.planning.shape import ModelShape, Tower
from vcr1.planning.workload import FLOAT, Precision, WeightSizes, Workload
from vcr1.policy.generation.decoding import WIDTH
from vcr1.policy.scoring import HEAD_ROWS


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that one block of a tower takes for each of its tokens.

    Attributes:
        entry: the hidden state that goes in: all that gradient checkpointing keeps.
        kept: what its operations keep for their backward pass, the entry included.
        passing: most that a forward without a graph holds at once.
        returning: what its backward pass holds besides.
    """

    entry: int
    kept: int
    passing: int
    returning: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Bytes of one forward.

    Attributes:
        kept: for the backward pass, at the end of a forward with a graph.
        passing: the most at any time of a forward without one.
        returning: what the block that is on its way back needs besides.
    """

    kept: int
    passing: int
    returning: int


def language_block(tower: Tower, weights: WeightSizes, precision: Precision) -> Block:
    """Return one block of the language model, for each token.

    Args:
        tower: the language model.
        weights: whether its norms are trained, and whether there are adapters.
        precision: bytes of numbers.
    """
    stream, product = precision.stream, precision.compute
    entered = entering(precision, consumers=(3, 2), adapters=weights.rank > 0)
    norms = norm_bytes(tower, precision, weights.language_trained)
    copies = 2 * tower.queries  # keys and values, for every query's head
    attention = product * (3 * tower.queries + 2 * tower.keys + copies) + 2 * stream * tower.head_dim
    adapters = 7 * weights.rank * product
    kept = norms + entered * tower.hidden + attention + 4 * product * tower.intermediate + adapters
    mlp = 3 * product * tower.intermediate
    turned = (stream + product) * tower.queries + 2 * copies * stream
    return Block(
        entry=stream * tower.hidden,
        kept=kept,
        passing=2 * stream * tower.hidden + max(mlp, turned),
        returning=mlp + 2 * stream * tower.hidden,
    )


def vision_block(tower: Tower, weights: WeightSizes, precision: Precision) -> Block:
    """Return one block of the vision tower, for each patch."""
    stream, product = precision.stream, precision.compute
    entered = entering(precision, consumers=(1, 2 if tower.gated else 1), adapters=False)
    norms = norm_bytes(tower, precision, weights.vision_trained)
    inner = (4 if tower.gated else 2) * product * tower.intermediate
    kept = norms + entered * tower.hidden + 7 * product * tower.hidden + inner
    passing = 2 * stream * tower.hidden + max(inner, (5 * product + 4 * FLOAT) * tower.hidden)
    return Block(
        entry=stream * tower.hidden,
        kept=kept,
        passing=passing,
        returning=inner + 2 * stream * tower.hidden,
    )


def entering(precision: Precision, consumers: tuple[int, int], adapters: bool) -> int:
    """Bytes, for each number in the hidden state, of what the matrices of a block keep of their input.

    Args:
        precision: with autocast every matrix keeps a copy of its own.
        consumers: matrices behind the first norm and behind the second.
        adapters: float32 ones, which copy their input likewise where the rest is narrower.
    """
    copied = precision.autocast or (adapters and precision.stream < FLOAT)
    return precision.compute * (sum(consumers) if copied else 2)


def norm_bytes(tower: Tower, precision: Precision, trained: bool) -> int:
    """Bytes that the two norms of a block keep for each token, with the residual stream before them."""
    if not tower.rms:
        return 2 * precision.stream * tower.hidden
    return 2 * tower.hidden * (FLOAT + (precision.stream if trained else 0))


def head_bytes(shape: ModelShape, rows: int, precision: Precision) -> int:
    """Return logits and what is made of them: log-softmax and, for the entropy, two more of their size."""
    return min(rows, HEAD_ROWS) * shape.vocabulary * (precision.compute + 3 * FLOAT)


def language_bytes(
    shape: ModelShape,
    weights: WeightSizes,
    precision: Precision,
    one: tuple[int, list[int]],
    checkpointing: bool,
) -> Forward:
    """Return the language model in one training pass.

    Args:
        shape: the model.
        weights: what is trained.
        precision: bytes of numbers.
        one: tokens of the pass's prompts, and those of the completions of each.
        checkpointing: only what enters a block is kept.
    """
    prompts, completions = one
    answered = sum(completions)
    tokens = prompts + answered
    block = language_block(shape.text, weights, precision)
    # What looks at what: a table for each group, and with autocast a copy of it in every block.
    table = sum(rows * (prompts // len(completions) + rows) for rows in completions)
    mask = table * precision.stream
    copied = table * precision.compute if precision.autocast else 0
    width = shape.text.hidden * precision.stream
    around = mask + tokens * (2 * width + FLOAT * shape.text.hidden) + (prompts + answered) * width
    kept = block.entry if checkpointing else block.kept
    saved = shape.text.layers * (tokens * kept + (0 if checkpointing else copied))
    live = (tokens * (block.kept - block.entry) + copied if checkpointing else 0) + tokens * block.returning
    return Forward(around + saved, around + tokens * block.passing + copied, live)


def vision_bytes(
    shape: ModelShape, weights: WeightSizes, precision: Precision, patches: int, checkpointing: bool
) -> Forward:
    """Return the vision tower on so many patches; as :func:`language_bytes`."""
    tower, stream = shape.vision, precision.stream
    block = vision_block(tower, weights, precision)
    pixels = patches * shape.patch_values * FLOAT
    features = patches // shape.merge**2 * shape.text.hidden * stream * shape.mergers
    without = pixels + features + patches * block.passing
    if not weights.vision_trained:
        return Forward(pixels + features, without, 0)
    merged = shape.mergers * patches * tower.hidden * (2 * FLOAT + 3 * precision.compute)
    kept = block.entry if checkpointing else block.kept
    saved = pixels + features + merged + tower.layers * patches * kept
    live = patches * (block.returning + (block.kept - block.entry if checkpointing else 0))
    return Forward(saved, without, live)


def cache_bytes(shape: ModelShape, precision: Precision, prompts: int, group: int, load: Workload) -> int:
    """Keys and values of prompts and of their completions; keys leave the rotation as wide as the stream."""
    column = shape.text.layers * shape.text.keys * (precision.stream + precision.compute)
    own = grown(load.completion)
    copies = 2 if prompts > 1 else 1  # prompts are read one by one, then laid side by side
    # One layer at a time grows, beside what it was.
    return column * prompts * (copies * load.prompt + group * own) + column // shape.text.layers * group * own


def grown(columns: int) -> int:
    """Return columns that a cache of completions has once it holds so many."""
    size = WIDTH
    while size < columns:
        size *= 2
    return size


def decode_bytes(shape: ModelShape, precision: Precision, rows: int, load: Workload) -> int:
    """Return one step of decoding: scores of one layer, and logits with what chance makes of them."""
    scores = rows * shape.text.heads * (load.prompt + load.completion) * (2 * precision.compute + FLOAT)
    return scores + 6 * rows * shape.vocabulary * FLOAT


def head_gradient_bytes(shape: ModelShape, weights: WeightSizes, rows: int, precision: Precision) -> int:
    """The same on its way back, with the gradient of the LM head: one, and one more that is added to it."""
    logits = head_bytes(shape, rows, precision)
    if not weights.head_trained:
        return logits
    own = weights.head * precision.stream
    if rows <= HEAD_ROWS:
        return max(logits, own + min(rows, HEAD_ROWS) * shape.vocabulary * (precision.compute + FLOAT))
    return own + max(logits, own + HEAD_ROWS * shape.vocabulary * (precision.compute + FLOAT))
