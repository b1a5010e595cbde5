"""The policy's own rollouts: prompts in, completions out, within the memory that there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcr1.policy.families import family_of
from vcr1.policy.generation.decoding import ReadPrompts, prefill
from vcr1.policy.generation.groups import joined
from vcr1.policy.generation.rollout import CompletionSampler, Watch
from vcr1.policy.generation.sampling import Sampling
from vcr1.policy.memory import halved
from vcr1.policy.prompts.layout import layout_prompts
from vcr1.policy.weights.casting import cast_weights
from vcr1.records import PromptInputs

if TYPE_CHECKING:
    from vcr1.policy.policy import VideoPolicy

Decoded = tuple[Tensor, Tensor]
"""Ids and log-probs ``[P·G, C]``."""


def decode_within_memory(
    policy: VideoPolicy, total: int, sampling: Sampling, decode: Callable[[int], Decoded]
) -> Decoded:
    """Decode as many completions at once as there is memory for.

    Ranks that share the weights lower the number together, so that none waits for another.

    Args:
        policy: the model.
        total: of completions.
        sampling: decoding parameters; ``rows`` bounds the number.
        decode: decodes so many at once.

    Raises:
        UserError: there is no memory for a single one.
    """
    sharding = policy.sharding
    gathers = sharding is not None and sharding.gathers
    device = next(policy.model.buffers()).device
    model = policy.model
    parts = [family_of(model).language(model), model.lm_head] if policy.shares_prompts else [model]
    with policy.evaluating(), cast_weights(parts, device) if sharding is None else sharding.gathered():
        while True:
            rows = min(bound for bound in (total, sampling.rows, policy.max_rows) if bound is not None)
            found = None
            try:
                found = decode(rows)
            except torch.OutOfMemoryError:
                if sharding is not None and not gathers:
                    raise  # in the middle of a step that ranks can only take together
            failed = rows * (found is None)
            if sharding is not None and gathers:
                failed = sharding.max_over_ranks(failed)
            if found is not None and not failed:
                return found
            policy.max_rows = halved(failed, 1, "completions decoded at once")


def decode_prompts(
    policy: VideoPolicy,
    inputs: list[PromptInputs],
    features: list[Tensor | None],
    num_generations: int,
    sampling: Sampling,
    chance: Tensor,
    rows: int,
    one_by_one: bool = False,
    watch: Watch | None = None,
) -> Decoded:
    """Sample completions of prompts over the keys and values of each prompt, which exist once.

    Args:
        policy: a model of a family that shares prompts.
        inputs: P prompt inputs.
        features: their video features.
        num_generations: G.
        sampling: decoding parameters.
        chance: ``[P·G, C]`` see :func:`~vcr1.policy.generation.sampling.chances`.
        rows: bound of completions decoded at once.
        one_by_one: read prompts one by one even where they are short.
        watch: called after each step.
    """
    sharding = policy.sharding
    lockstep = None if sharding is None or sharding.gathers else sharding.max_over_ranks

    def read(items: list[PromptInputs], own: list[Tensor | None]) -> ReadPrompts:
        layout = layout_prompts(policy.model, items, own)
        return prefill(policy.model, layout, lockstep is None and (one_by_one or policy.splits(layout, 0)))

    def sample(items: list[PromptInputs], own: list[Tensor | None], luck: Tensor) -> Decoded:
        def some(places: Sequence[int]) -> ReadPrompts:
            return read([items[place] for place in places], [own[place] for place in places])

        lengths = [item["input_ids"].shape[1] for item in items]
        return sampler(some, lengths, num_generations, luck)

    if lockstep is None:
        step = policy.steps.of(sampling, inputs[0]["input_ids"].device, sharding is not None)
        sampler = CompletionSampler(
            policy.model, sampling, policy.special_tokens, step=step, rows=rows, watch=watch
        )
        return sample(inputs, features, chance)
    sampler = CompletionSampler(policy.model, sampling, policy.special_tokens, max_over_ranks=lockstep)
    # In turns, as many on all ranks: a prompt that enters would be read while others decode.
    width = max(1, rows // num_generations)
    turns = [
        (inputs[start : start + width], features[start : start + width])
        for start in range(0, len(inputs), width)
    ]
    luck = chance.split(width * num_generations)
    count = lockstep(len(turns))
    decoded = [sample(*turn, part) for turn, part in zip(turns, luck, strict=True)]
    for _ in range(count - len(turns)):
        sample(policy.dummy_inputs(video=False), [None], chance[:num_generations])
    return joined(decoded, policy.encoder.padding)
