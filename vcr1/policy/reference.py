"""What a policy is compared with: a frozen copy of it, or its own base."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vcr1.policy.policy import VideoPolicy
from vcr1.policy.scoring import TokenScores
from vcr1.policy.weights.lora import adapters_off
from vcr1.records import PromptInputs, RolloutGroups


class Reference(Protocol):
    """Scores completions as a policy of a while ago would have."""

    def vision(self, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """See :meth:`VideoPolicy.vision`."""

    def logprobs(
        self, groups: RolloutGroups, features: list[Tensor | None], temperature: float = 1.0
    ) -> TokenScores:
        """See :meth:`VideoPolicy.logprobs`."""


class AdaptersOff:
    """The base under a policy's adapters: no second copy of the weights.

    Args:
        policy: has adapters.
    """

    def __init__(self, policy: VideoPolicy) -> None:
        self.policy = policy

    @torch.no_grad()
    def vision(self, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """Return the base's video features."""
        with adapters_off(self.policy), self.policy.evaluating():
            return self.policy.vision(inputs)

    @torch.no_grad()
    def logprobs(
        self, groups: RolloutGroups, features: list[Tensor | None], temperature: float = 1.0
    ) -> TokenScores:
        """Return the base's scores."""
        with adapters_off(self.policy), self.policy.evaluating():
            return self.policy.logprobs(groups, features, temperature)


def reference_of(policy: VideoPolicy) -> VideoPolicy | AdaptersOff:
    """Return the policy as it is now, to be compared with later; a policy with adapters has to be fresh.

    Returns:
        A frozen copy; with adapters the base, which is what fresh adapters compute.
    """
    return AdaptersOff(policy) if policy.is_adapted else policy.frozen_copy()
