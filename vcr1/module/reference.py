"""A policy that is held near a reference: where that comes from, moves on and is saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.module.base import PolicyModule
from vcr1.policy import VideoPolicy, reference_of
from vcr1.records import Batch, RolloutGroups

PREFIX = "reference."
"""What names of the reference's weights begin with in a checkpoint."""


class ReferencedModule(PolicyModule):
    """A policy that is held near a reference: a frozen copy of it, or the base under its adapters.

    The reference is the policy as it comes in. It may follow the policy in steps, as in the iterated form of
    GRPO (arXiv 2402.03300, algorithm 1); from then on it is part of the checkpoints.

    Args:
        policy: the model that is trained.
        kl_weight: what the distance from the reference costs; 0 keeps no reference in memory.
        reference_refresh: updates after which the reference becomes the policy as it then is; None for never.
            Rollouts that are in use keep the older reference.
        common: arguments of :class:`PolicyModule`.

    Attributes:
        reference: the frozen copy or the base, if any.
        reference_moved: whether it is another model than the one that the run began with.

    Raises:
        UserError: a refresh without a reference, or of one that is the base, or a number of updates below 1.
    """

    def __init__(
        self, policy: VideoPolicy, *, kl_weight: float, reference_refresh: int | None = None, **common: Any
    ) -> None:
        super().__init__(policy, **common)
        if reference_refresh is not None:
            if not isinstance(reference_refresh, int) or reference_refresh < 1:
                raise UserError(
                    f"algorithm.reference_refresh={reference_refresh} is no whole number of at least 1; "
                    f"null refreshes never"
                )
            if not kl_weight:
                raise UserError(
                    f"algorithm.reference_refresh={reference_refresh}, but algorithm.objective.kl_weight=0 "
                    f"keeps no reference: set a weight, or reference_refresh=null"
                )
            if policy.is_adapted:
                raise UserError(
                    f"algorithm.reference_refresh={reference_refresh}, but with model.lora the reference is "
                    f"the base, which stays as it is: set reference_refresh=null, or train without adapters"
                )
        self.reference_refresh = reference_refresh
        self.reference = reference_of(policy) if kl_weight else None
        self.reference_moved = False
        self._refreshed_at = 0

    def policies(self) -> list[VideoPolicy]:
        """Return the policy and its frozen copy."""
        return [self.policy, *([self.reference] if isinstance(self.reference, VideoPolicy) else [])]

    @torch.no_grad()
    def reference_logprobs(self, groups: RolloutGroups, features: list[Tensor | None]) -> Tensor | None:
        """Return ``[P, G, C]`` log-probs under the reference; None without one.

        Args:
            groups: P·G completions.
            features: the policy's video features, which serve the reference while its vision is frozen.
        """
        if self.reference is None:
            return None
        if not self.policy.vision_is_frozen:
            features = self.reference.vision(groups.inputs)
        return self.reference.logprobs(groups, features, self.sampling.temperature).logprobs

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Refresh the reference before the first micro-batch after every so many updates.

        Not at the end of an update: what saves checkpoints comes before that, and a run that is resumed from
        such a checkpoint would go on with an older reference.
        """
        super().on_train_batch_start(batch, batch_idx)
        update = self.trainer.global_step
        due = self.reference_refresh and update and update % self.reference_refresh == 0
        if isinstance(self.reference, VideoPolicy) and due and self._refreshed_at != update:
            self.reference.load_state_dict(self.policy.state_dict())
            self.reference_moved, self._refreshed_at = True, update

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The reference is not saved a second time while it is the model that the run began with."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_moved"] = self.reference_moved
        if not self.reference_moved:
            drop_reference(checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The reference is the saved one, or else the one that this module was built with."""
        super().on_load_checkpoint(checkpoint)
        self.reference_moved = checkpoint["reference_moved"]
        if "state_dict" not in checkpoint:  # shards, which the strategy has read
            return
        state = checkpoint["state_dict"]
        if not isinstance(self.reference, VideoPolicy):
            drop_reference(state)
            return
        if not self.reference_moved:
            state |= self.reference.state_dict(prefix=PREFIX)


def drop_reference(state: dict[str, Any]) -> None:
    """Take the reference's weights out of a module's state."""
    for name in [name for name in state if name.startswith(PREFIX)]:
        del state[name]
