"""FSDP2 through Lightning: which mesh, which precision, and checkpoints of shards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.load import _METADATA_FILENAME
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from vcr1.distributed.shards import ShardReader, load_shards
from vcr1.errors import UserError
from vcr1.policy import VideoPolicy
from vcr1.policy.weights.sharding import is_sharded, reshard, shard


class ShardedStrategy(ModelParallelStrategy):
    """Weights, gradients and optimizer state spread over all ranks.

    Args:
        replicas: groups of ranks that hold the model once each (hybrid sharding); ``nodes`` for one group in
            every node, so that only gradients cross between nodes.
        offload: keep shards and the optimizer's state in the memory of the host.
        gather: whether rollouts gather the language model once; None where it fits.
        more: arguments of Lightning's ``ModelParallelStrategy``.
    """

    def __init__(
        self, replicas: int | str = 1, offload: bool = False, gather: bool | None = None, **more: Any
    ) -> None:
        if offload and torch.cuda.is_available():
            more.setdefault("process_group_backend", "cpu:gloo,cuda:nccl")
        super().__init__(data_parallel_size="auto", tensor_parallel_size=1, **more)
        self.replicas = replicas
        self.offload = offload
        self.gather = gather

    def setup_environment(self) -> None:
        """Lightning's ``auto`` means one data-parallel rank per node; here every rank has its own data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def mesh(self) -> DeviceMesh:
        """Return the ranks to shard over, or to replicate over and shard within.

        Raises:
            UserError: the ranks cannot be divided into so many groups.
        """
        ranks = self.world_size
        groups = replica_groups(self.replicas, ranks, self.num_nodes)
        if groups == 1:
            return self.device_mesh["data_parallel"]
        names = ("replicate", "shard")
        return init_device_mesh(self.root_device.type, (groups, ranks // groups), mesh_dim_names=names)

    def shard(self, policies: Iterable[VideoPolicy]) -> None:
        """Spread policies over the ranks, unless they are already: an evaluation may have come before."""
        compute = torch.bfloat16 if self.precision_plugin.precision == "bf16-mixed" else None
        for policy in policies:
            if not policy.shares_prompts:
                name = policy.encoder.family.name
                raise UserError(f"trainer.strategy: a {name} has no adapter, and cannot be sharded; use ddp")
            if not is_sharded(policy):
                shard(policy, self.mesh, compute=compute, offload=self.offload, gather=self.gather)

    def model_to_device(self) -> None:
        """Shards are where they belong; of a model whose weights stay on the host, only buffers move."""
        if not self.offload:
            super().model_to_device()
            return
        assert self.model is not None
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.root_device))
        # Where inputs go and randomness comes from, which Lightning reads off the last move of the module.
        self.model._device = self.root_device  # type: ignore[assignment]

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load shards that any number of ranks wrote; weights that it does not have stay as they are.

        Raises:
            UserError: a weight that is trained is not in the checkpoint.
        """
        path = Path(self.broadcast(checkpoint_path))
        if not path.is_dir():
            return super().load_checkpoint(checkpoint_path, weights_only)
        assert self.model is not None
        saved = ShardReader(path).read_metadata().state_dict_metadata
        state = get_model_state_dict(self.model)
        there = {name: weight for name, weight in state.items() if f"state_dict.{name}" in saved}
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if missing := sorted(trained - there.keys()):
            raise UserError(f"{path} is a checkpoint of another model: it has no {missing[0]}")
        load_shards({"state_dict": there}, path)
        reshard(self.model)
        self.model.load_state_dict(there, strict=False)
        for number, optimizer in enumerate(self.optimizers):
            found = {f"optimizer_{number}": get_optimizer_state_dict(self.model, optimizer)}
            load_shards(found, path)
            set_optimizer_state_dict(
                self.model,
                optimizer,
                optim_state_dict=found[f"optimizer_{number}"],
                options=StateDictOptions(cpu_offload=self.offload),
            )
        metadata: dict[str, Any] = torch.load(path / _METADATA_FILENAME, weights_only=True)
        return metadata


def replica_groups(replicas: int | str, ranks: int, nodes: int) -> int:
    """Into how many groups the ranks are divided, each of which holds the model once.

    Args:
        replicas: a number, or ``nodes``.
        ranks: of the run.
        nodes: of the run.

    Raises:
        UserError: the ranks cannot be divided so.
    """
    groups = nodes if replicas == "nodes" else replicas
    if not isinstance(groups, int) or groups < 1 or ranks % groups:
        raise UserError(
            f"trainer.strategy.replicas={replicas}: {ranks} ranks cannot be divided into so many groups"
        )
    return groups
