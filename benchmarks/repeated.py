"""The same step as a careful user of transformers writes it: prompt and pixels once for every completion.

``generate`` with its cache, no padding, no mask where none is needed, the LM head on completions only and in
chunks: what TRL's trainer does for images. Nothing is slow on purpose.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from learner import Learner, make_learner
from measuring import Meter
from vcr1.policy.scoring import head_scores
from vcr1.records import PromptInputs

TOKENWISE = ("input_ids", "attention_mask", "mm_token_type_ids")


def repeated_learner(model: Any, group: int, length: int) -> Learner:
    """A Hugging Face model as it is, and a copy of it as its reference."""
    return make_learner(model, copy.deepcopy(model), group, length)


def repeated_step(learner: Learner, inputs: PromptInputs, never: list[int], meter: Meter) -> Tensor:
    """One prompt's whole step; returns the sampled ids ``[G, C]``.

    Args:
        learner: its model is a Hugging Face model.
        inputs: of one prompt.
        never: tokens that must not be sampled.
        meter: what measures.
    """
    batch = repeat(inputs, learner.group)
    with meter.phase("rollout"):
        ids = generate(learner.model, batch, learner.length, never)
    with meter.phase("reference"), torch.no_grad():
        reference = repeated_logprobs(learner.reference, batch, ids)
    with meter.phase("policy"):
        learner.backward(repeated_logprobs(learner.model, batch, ids), reference)
    with meter.phase("optimizer"):
        learner.update()
    return ids


def repeat(inputs: PromptInputs, group: int) -> PromptInputs:
    """The processor's dict of one prompt as a batch of ``group`` equal ones."""
    return {name: value.repeat(group, *[1] * (value.ndim - 1)) for name, value in inputs.items()}


@torch.no_grad()
def generate(model: Any, batch: PromptInputs, length: int, never: list[int]) -> Tensor:
    """``[G, C]`` sampled ids: temperature 1, nothing cut off but ``never``."""
    rows: Tensor = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=length,
        suppress_tokens=never,
    )
    return rows[:, batch["input_ids"].shape[1] :]


def repeated_logprobs(model: Any, batch: PromptInputs, ids: Tensor) -> Tensor:
    """``[G, C]`` log-probs of completions by one plain forward of G rows; differentiable."""
    tails = dict(zip(TOKENWISE, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True))
    longer = {
        name: torch.cat([value, tails[name]], 1) if name in tails else value for name, value in batch.items()
    }
    model.model.rope_deltas = None  # what generate has left there belongs to a cache
    hidden = model.model(**longer, use_cache=False).last_hidden_state[:, -ids.shape[1] - 1 : -1]
    logprobs, _ = head_scores(model.lm_head, hidden.flatten(0, 1), ids.flatten(), 1.0)
    return logprobs.view(ids.shape)
