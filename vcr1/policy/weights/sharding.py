"""A policy whose weights are spread over ranks (FSDP2): what has to happen on all of them together.

A forward of a sharded block is a collective: every rank must make as many of them, in the same order. A
policy without shards asks none of the questions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from vcr1.policy.families import family_of

FORWARDS = ("vision", "rollout", "logprobs")
"""Methods of a policy that run its modules; all of them are forwards of the root."""


class Sharding:
    """The shards of one policy, and what its ranks agree on.

    Args:
        root: the policy.
        device: of this rank.
        compute: floating type of gathered weights; None for their own.
        gather: whether a rollout gathers all weights of the language model once, rather than block by block
            for each token; None to find out what fits.
        reserve: share of a GPU's memory that a gathering leaves free for what a rollout needs besides.

    Attributes:
        awaited: returns the bytes that are going to be taken for good, such as the state of an optimizer that
            has made no update yet.
    """

    def __init__(
        self,
        root: nn.Module,
        device: torch.device,
        compute: torch.dtype | None,
        gather: bool | None,
        reserve: float = 0.2,
    ) -> None:
        self.root = root
        self.compute = compute
        self.device = device
        self.reserve = reserve
        self.awaited: Callable[[], int] = lambda: 0
        self._gather = gather

    def max_over_ranks(self, count: int) -> int:
        """Return the largest of the ranks' counts."""
        largest = torch.tensor(count, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    @property
    def gathers(self) -> bool:
        """Return whether rollouts gather; found out once, and the same on all ranks."""
        if self._gather is None:
            self._gather = not self.max_over_ranks(not self._fits())
        return self._gather

    def _fits(self) -> bool:
        """Return whether this rank can hold all weights at once, now and once the optimizer has its state."""
        if self.device.type != "cuda":
            return True
        wanted = sum(p.numel() * (self.compute or p.dtype).itemsize for p in self.root.parameters())
        free, total = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return wanted + self.awaited() < free - self.reserve * total

    def _modules(self) -> list[Any]:
        """Return what a rollout needs: the root and the sharded blocks of the language model."""
        model = self.root.model
        language = family_of(model).language(model)
        return [self.root, *(module for module in language.modules() if isinstance(module, FSDPModule))]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """All weights of the language model on every rank for a while, if they fit: no collectives within."""
        if not self.gathers:
            yield
            return
        modules = self._modules()
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()


def shard(
    policy: Any,
    mesh: DeviceMesh,
    *,
    compute: torch.dtype | None = None,
    offload: bool = False,
    gather: bool | None = None,
) -> None:
    """Spread a policy over a mesh, block by block; its methods then run on all ranks together.

    Args:
        policy: a :class:`~vcr1.policy.policy.VideoPolicy`, whole, the same on all ranks.
        mesh: of one dimension, or of two to shard in the second and replicate across the first.
        compute: floating type in which weights are gathered and computed with; None for their own. Gradients
            are reduced in float32.
        offload: keep shards, gradients and the optimizer's state in the memory of the host.
        gather: see :class:`Sharding`.
    """
    settings: dict[str, Any] = {
        "mesh": mesh,
        # Inputs stay as they are: in half precision, the seconds between two frames would be rounded.
        "mp_policy": MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False),
        "offload_policy": CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        if offload
        else OffloadPolicy(),
    }
    for block in family_of(policy.model).blocks(policy.model):
        fully_shard(block, reshard_after_forward=True, **settings)
    fully_shard(policy, reshard_after_forward=True, **settings)
    for method in FORWARDS:
        register_fsdp_forward_method(policy, method)
    device = torch.device(mesh.device_type)
    if mesh.device_type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    policy.sharding = Sharding(policy, device, compute, gather)


def awaited_state(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Return the bytes of two moments of each weight on this rank that has none yet."""
    missing = [
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter not in optimizer.state
    ]
    return sum(
        2 * (part.to_local() if isinstance(part, DTensor) else part).numel() * part.dtype.itemsize
        for part in missing
    )


def reshard(model: nn.Module) -> None:
    """Forget gathered weights, which a change of the shards does not reach."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Return whether any part of a model is spread over ranks."""
    return any(isinstance(module, FSDPModule) for module in model.modules())
