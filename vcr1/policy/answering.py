"""Several questions about one video: one vision pass, and one prefill of what their prompts share."""

from __future__ import annotations

import torch
from torch import Tensor

from vcr1.policy.decoding import SharedCache, prefill, prefill_common
from vcr1.policy.policy import VideoPolicy
from vcr1.policy.prompts import PromptLayout, lay_out
from vcr1.policy.rollout import Stops, Watch, go_on
from vcr1.policy.sampling import Sampling
from vcr1.records import PromptInputs, RolloutGroups


@torch.no_grad()
def answer_together(
    policy: VideoPolicy,
    inputs: list[PromptInputs],
    sampling: Sampling,
    generator: torch.Generator | None = None,
    watch: Watch | None = None,
) -> RolloutGroups:
    """One answer to each of P prompts about the same clip, or about none.

    The clip goes through the vision tower once, and the language model reads what the prompts begin with
    alike, the video above all, once. A model of a family without an adapter shares nothing.

    Args:
        policy: the model; not one whose weights are spread over ranks.
        inputs: P prompt inputs on the model's device, all with the same clip.
        sampling: decoding parameters.
        generator: source of randomness, the global one where None.
        watch: called after each step with the ids so far ``[P, columns]``; never by a model of a family
            without an adapter.
    """
    if not policy.shares_prompts:
        return policy.rollout(inputs, policy.vision(inputs), 1, sampling, generator)
    with policy.evaluating():
        features = policy.vision(inputs[:1]) * len(inputs)
        layout = lay_out(policy.model, inputs, features)
        logits, cache = _read_together(policy, inputs, layout)
        stops = Stops(policy.encoder.end_of_turn, policy.encoder.padding, policy._never_sampled)
        ids, logprobs = go_on(
            policy.model, logits, cache, layout.next_position, 1, sampling, stops, generator, watch=watch
        )
    return policy._groups(inputs, 1, ids, logprobs)


def common_tokens(inputs: list[PromptInputs]) -> int:
    """Tokens that all prompts begin with; at least one token of each is not counted."""
    ids = [item["input_ids"][0] for item in inputs]
    most = min(map(len, ids)) - 1
    alike = torch.stack([row[:most] == ids[0][:most] for row in ids]).all(0)
    return int(alike.long().cumprod(0).sum())


def _read_together(
    policy: VideoPolicy, inputs: list[PromptInputs], layout: PromptLayout
) -> tuple[Tensor, SharedCache]:
    """Logits ``[P, V]`` after the prompts and their cache."""
    common = common_tokens(inputs) if len(inputs) > 1 else 0
    video = layout.alone(0).is_video[0, common:]
    if common == 0 or video.any():  # other system messages, say: nothing of the video is shared
        return prefill(policy.model, layout, one_by_one=True)
    return prefill_common(policy.model, layout, common)
