"""Floating-point operations of an update on one GPU; a multiplication with its addition counts as two."""

from __future__ import annotations

from vcr1.planning.memory import Setup
from vcr1.planning.shape import ModelShape, Tower


def work(setup: Setup) -> dict[str, float]:
    """Return operations of one update on one GPU, by phase.

    Completions are taken to be as long as usual ones, prompts as long as the largest.

    Returns:
        ``rollout``: vision, prompt and sampling; ``reference``; ``forward``; ``backward``, with what it
        computes again.
    """
    shape, weights, load = setup.shape, setup.weights, setup.load
    seeing = load.prompts * vision_pass(shape, load.vision_tokens, load.steps)
    passes = load.passes(load.expected)
    scoring = sum(training_pass(shape, prompts, completions) for prompts, completions in passes)
    seen_again = seeing if weights.vision_trained else 0.0
    # Of a matrix product's two gradients, a frozen one needs but that of its input.
    language = 2.0 if weights.language_trained else 1.0
    again = (1.0 if setup.checkpointing else 0.0) + (1.0 if len(passes) > 1 else 0.0)
    backward = (language + again) * scoring + (2.0 + (1.0 if setup.checkpointing else 0.0)) * seen_again
    repeats = load.updates - 1
    total = {
        "rollout": seeing + load.prompts * sampling(setup) if load.samples else 0.0,
        "reference": scoring + (0.0 if weights.adapters else seen_again) if load.reference else 0.0,
        "forward": load.updates * scoring + repeats * seeing + (0.0 if load.samples else seeing),
        "backward": load.updates * backward,
    }
    return {phase: load.micro_batches * operations / load.updates for phase, operations in total.items()}


def linear(tower: Tower) -> float:
    """Return operations of all blocks' matrices on one token."""
    return 2.0 * tower.layers * tower.block_parameters


def attention(tower: Tower, pairs: float) -> float:
    """Return operations of all blocks' attention where so many pairs of tokens look at each other."""
    return 4.0 * tower.layers * tower.queries * pairs


def head(shape: ModelShape, rows: float) -> float:
    """Return operations of the LM head on so many hidden states."""
    return 2.0 * shape.text.hidden * shape.vocabulary * rows


def training_pass(shape: ModelShape, prompts: int, completions: list[int]) -> float:
    """Return a forward over prompts, each once, with the tokens of completions behind each of them."""
    prompt = prompts / len(completions)
    total = 0.0
    for answered in completions:
        pairs = prompt**2 / 2 + answered * prompt + answered**2 / 2
        total += linear(shape.text) * (prompt + answered) + attention(shape.text, pairs)
        total += head(shape, answered)
    return total


def sampling(setup: Setup) -> float:
    """Reading one prompt and sampling its group."""
    shape, load = setup.shape, setup.load
    prompt, length = load.prompt, load.expected
    read = linear(shape.text) * prompt + attention(shape.text, prompt**2 / 2) + head(shape, 1)
    sampled = length * (linear(shape.text) + head(shape, 1))
    looked = attention(shape.text, length * prompt + length**2 / 2)
    return read + load.group * (sampled + looked)


def vision_pass(shape: ModelShape, tokens: int, steps: int) -> float:
    """Return the vision tower on one video: so many tokens over so many temporal patches."""
    tower, cells = shape.vision, shape.merge**2
    patches = tokens * cells
    frame = patches / max(steps, 1)
    near = min(shape.window or frame, frame)
    full = shape.full_blocks
    pairs = 4.0 * tower.hidden * patches * (full * frame + (tower.layers - full) * near)
    merging = 2.0 * tokens * shape.merger_parameters
    embedding = 2.0 * patches * shape.patch_values * tower.hidden
    return linear(tower) * patches + pairs + merging + embedding
