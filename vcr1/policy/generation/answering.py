"""Several questions about one video: one vision pass, and one prefill of what their prompts share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vcr1.policy.generation.engine import decode_prompts
from vcr1.policy.generation.groups import check_numbers, completed_groups
from vcr1.policy.generation.rollout import Watch
from vcr1.policy.generation.sampling import Sampling, chances
from vcr1.policy.policy import VideoPolicy
from vcr1.records import PromptInputs, RolloutGroups


@torch.no_grad()
def answer_together(
    policy: VideoPolicy,
    inputs: list[PromptInputs],
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> RolloutGroups:
    """Return one answer to each of P prompts about the same clip, or about none.

    The clip goes through the vision tower once, and the language model reads what the prompts begin with
    alike, the video above all, once. A model of a family without an adapter shares nothing.

    Args:
        policy: the model; not one whose weights are spread over ranks.
        inputs: P prompt inputs on the model's device, all with the same clip.
        sampling: decoding parameters.
        generator: source of randomness, the global one where None.
        watch: called after each step with the ids so far ``[P, columns]``; never by a model of a family
            without an adapter.

    Raises:
        RuntimeError: the model's logits are not finite.
    """
    if not policy.shares_prompts:
        return check_numbers(policy.rollout(inputs, policy.vision(inputs), 1, sampling, seeds))
    with policy.evaluating():
        features = policy.vision(inputs[:1]) * len(inputs)
        chance = chances(seeds, len(inputs), 1, sampling)
        found = decode_prompts(policy, inputs, features, 1, sampling, chance, len(inputs), True, watch)
    return check_numbers(completed_groups(policy.encoder, inputs, 1, *found))
