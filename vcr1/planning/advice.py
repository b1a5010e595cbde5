"""What to change where a run does not fit: overrides, the mildest first, and no more than it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vcr1.planning.memory import Setup, memory
from vcr1.planning.shape import ModelShape
from vcr1.planning.workload import PlannedSharding, Precision

RANK = 16
"""Of adapter=lora."""

HALF = Precision(weights=2, compute=2, stream=2)
"""Of model.dtype=bfloat16, which is enough for a base that is not trained."""

Change = Callable[[Setup], Setup | None]
"""The setup with something changed; None where that is so already, or cannot be."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One way to make a run fit.

    Attributes:
        overrides: what to add to the command line.
        peak: bytes on each GPU then.
        fits: whether that is few enough.
    """

    overrides: tuple[str, ...]
    peak: int
    fits: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """An override and what it does."""

    override: str
    change: Change


def advise(setup: Setup, limit: int) -> list[Advice]:
    """Return ways to bring a run under a limit: one that still trains all weights, one with adapters.

    Args:
        setup: the run.
        limit: bytes on each GPU.

    Returns:
        Ways that fit; where there is none, the one that comes closest. Nothing where the run fits already.
    """
    if memory(setup).peak <= limit:
        return []
    ways = [_along(setup, steps, limit) for steps in (_whole(setup), _adapted(setup)) if steps]
    return [way for way in ways if way.fits] or sorted(ways, key=lambda way: way.peak)[:1]


def _along(setup: Setup, steps: Sequence[_Step], limit: int) -> Advice:
    """Take steps that help until the run fits, then take back those that it does not need."""
    taken: list[_Step] = []
    current = setup
    for step in steps:
        changed = step.change(current)
        if changed is None or memory(changed).peak >= 0.99 * memory(current).peak:
            continue
        taken.append(step)
        current = changed
        if memory(current).peak <= limit:
            break
    for step in list(taken[:-1]):
        others = [one for one in taken if one is not step]
        if memory(_after(setup, others)).peak <= limit:
            taken = others
    peak = memory(_after(setup, taken)).peak
    return Advice(tuple(step.override for step in taken), peak, peak <= limit)


def _after(setup: Setup, steps: Sequence[_Step]) -> Setup:
    """Return the setup after some steps."""
    for step in steps:
        setup = step.change(setup) or setup
    return setup


def _whole(setup: Setup) -> list[_Step]:
    """Return steps after which all weights are still trained, as far as possible."""
    if setup.weights.adapters:
        return []
    ranks = setup.sharding.ranks
    steps = [_checkpointing(), *_passes(setup)]
    if ranks > 1:
        steps.append(_Step("strategy=fsdp", partial(_sharded, ranks=ranks)))
    steps += [_more(count) for count in (2, 4, 8) if count > ranks]
    more_nodes = [_Step(f"{_cluster(nodes)}", partial(_sharded, ranks=8 * nodes)) for nodes in (2, 4)]
    return [*steps, *[step for nodes, step in zip((2, 4), more_nodes, strict=True) if 8 * nodes > ranks]]


def _adapted(setup: Setup) -> list[_Step]:
    """Return steps that give up training all weights, or the reference, or frames."""
    steps = [_checkpointing(), *_passes(setup)]
    if not setup.weights.adapters:
        steps.append(_Step("adapter=lora model.dtype=bfloat16 algorithm.lr=1e-5", _lora))
    elif setup.precision.weights > 2:
        steps.append(_Step("model.dtype=bfloat16", _half))
    smaller = _Step("data.video.total_pixels=1404928", partial(_fewer_tokens, pixels=1404928))
    least = _Step("data.video.total_pixels=702464", partial(_fewer_tokens, pixels=702464))
    return [*steps, _Step("model.freeze=[vision]", _blind), smaller, least]


def _checkpointing() -> _Step:
    return _Step(
        "model.gradient_checkpointing=true",
        lambda one: None if one.checkpointing else replace(one, checkpointing=True),
    )


def _passes(setup: Setup) -> list[_Step]:
    """Fewer completions in one pass: a quarter of them, then one."""
    load, steps = setup.load, []
    for together in (max(load.prompts * load.group // 4, 1), 1):
        tokens = load.prompt + together * load.answer
        if load.prompts * load.group > together and tokens < (load.max_tokens or math.inf):
            steps.append(_Step(f"model.max_tokens={tokens}", partial(_at_most, tokens=tokens)))
    return steps


def _at_most(setup: Setup, tokens: int) -> Setup:
    return replace(setup, load=replace(setup.load, max_tokens=tokens))


def _cluster(nodes: int) -> str:
    return f"strategy=fsdp trainer.devices=8 trainer.num_nodes={nodes}"


def _more(devices: int) -> _Step:
    return _Step(f"strategy=fsdp trainer.devices={devices}", partial(_sharded, ranks=devices))


def _sharded(setup: Setup, ranks: int) -> Setup | None:
    if setup.sharding.shards >= ranks:
        return None
    sharding = PlannedSharding(ranks, ranks, on_gpu=setup.sharding.on_gpu)
    precision = replace(setup.precision, stream=setup.precision.compute)
    return replace(setup, sharding=sharding, precision=precision)


def _lora(setup: Setup) -> Setup:
    weights = replace(
        setup.weights,
        trained=0,
        adapters=adapter_parameters(setup.shape, RANK),
        vision_trained=False,
        head_trained=False,
        language_trained=False,
        rank=RANK,
    )
    return replace(setup, weights=weights, precision=HALF)


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Return parameters of LoRA on all projections of the language model."""
    text = shape.text
    attention = 2 * (text.hidden + text.queries) + 2 * (text.hidden + text.keys)
    return rank * text.layers * (attention + 3 * (text.hidden + text.intermediate))


def _half(setup: Setup) -> Setup:
    return replace(setup, precision=HALF)


def _blind(setup: Setup) -> Setup | None:
    weights = setup.weights
    if not weights.vision_trained:
        return None
    trained = max(weights.trained - weights.vision, 0)
    return replace(setup, weights=replace(weights, trained=trained, vision_trained=False))


def _fewer_tokens(setup: Setup, pixels: int) -> Setup | None:
    tokens = pixels // setup.shape.spatial**2
    if setup.load.vision_tokens <= tokens:
        return None
    return replace(setup, load=replace(setup.load, vision_tokens=tokens))
