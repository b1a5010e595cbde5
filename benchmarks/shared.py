"""A GRPO step of this package: a prompt is computed once for its group. The order is that of GRPOModule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from learner import EndlessEncoder, Learner, make_learner
from measuring import Meter
from vcr1.policy import Sampling, VideoPolicy
from vcr1.records import PromptInputs, RolloutGroups


def shared_learner(model: Any, processor: Any, group: int, length: int) -> Learner:
    """The package's policy around a Hugging Face model, and a copy of it as its reference."""
    policy = VideoPolicy(model, EndlessEncoder(processor)).eval()
    return make_learner(policy, policy.frozen_copy(), group, length)


def shared_step(learner: Learner, inputs: PromptInputs, meter: Meter) -> RolloutGroups:
    """One prompt's whole step; returns what was sampled."""
    with meter.phase("vision"):
        features = learner.model.vision([inputs])
    with meter.phase("rollout"):
        sampling = Sampling(max_new_tokens=learner.length)
        groups: RolloutGroups = learner.model.rollout([inputs], features, learner.group, sampling)
    with meter.phase("reference"):
        reference = shared_reference(learner, groups)
    with meter.phase("policy"):
        learner.backward(learner.model.logprobs(groups, features).logprobs[0], reference)
    del features  # and the vision tower's graph
    with meter.phase("optimizer"):
        learner.update()
    return groups


@torch.no_grad()
def shared_reference(learner: Learner, groups: RolloutGroups) -> Tensor:
    """``[G, C]`` log-probs under the reference, which looks at the video with its own eyes."""
    features = learner.reference.vision(groups.inputs)
    logprobs: Tensor = learner.reference.logprobs(groups, features).logprobs[0]
    return logprobs
