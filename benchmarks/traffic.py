"""Counts the bytes that a rank sends, by phase and kind of collective.

Every collective of torch.distributed goes through torch's dispatcher, whether Python calls it (FSDP2, the
package, Lightning) or C++ does (DDP's reducer). A dispatch mode sees them all there, with the very tensors
that are sent; so the count is exact, and a run that is counted is slower than one that is not.

What is counted is the size of the data and the number of ranks. What a rank sends of them is a convention:
that of the ring algorithm, in which all ranks send alike. Of S bytes (all that an all-gather gives to each
rank, all that a rank puts into a reduce-scatter or an all-reduce) among n ranks:

- all-gather, reduce-scatter, broadcast: ``(n - 1) / n · S`` (the mean over the ranks for a broadcast);
- all-reduce, a reduce-scatter and an all-gather: twice that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GATHER, SCATTER, REDUCE, BROADCAST = "all-gather", "reduce-scatter", "all-reduce", "broadcast"

KINDS = {
    "_allgather_base_": GATHER,
    "allgather_": GATHER,
    "_reduce_scatter_base_": SCATTER,
    "allreduce_": REDUCE,
    "broadcast_": BROADCAST,
    "all_gather_into_tensor": GATHER,
    "reduce_scatter_tensor": SCATTER,
    "all_reduce": REDUCE,
}
"""Operations of ``c10d``, which write into tensors, and of ``_c10d_functional``, which return them."""
SILENT = {"barrier", "monitored_barrier_", "wait_tensor", "_wrap_tensor_autograd"}
"""Operations that carry no data."""


def ring_bytes(kind: str, size: float, ranks: int) -> float:
    """Bytes that each of so many ranks sends for a collective over ``size`` bytes."""
    return (2 if kind == REDUCE else 1) * size * (ranks - 1) / ranks


class Traffic(TorchDispatchMode):
    """What a rank sends while the mode is on, in the thread that entered it.

    Attributes:
        phase: under which the next collectives are counted; the caller sets it.
        bytes: (phase, kind) -> bytes that this rank sends.
        calls: (phase, kind) -> collectives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "other"
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a collective, and let it pass.

        Raises:
            NotImplementedError: a collective that this class has no formula for.
        """
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes again, in operations on its local tensors
        name = func._opname if func.namespace in ("c10d", "_c10d_functional") else None
        result = func(*args, **(kwargs or {}))
        if name is not None and name not in SILENT:
            if name not in KINDS:
                raise NotImplementedError(f"{func}: how much does a rank send for this?")
            self._count(KINDS[name], func, args, result)
        return result

    def _count(self, kind: str, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Add a collective that has just been called."""
        in_place = func.namespace == "c10d"
        whole = args[0]  # of a functional collective, its input
        if in_place and kind == SCATTER:
            whole = args[1]
        elif not in_place and kind == GATHER:
            whole = result
        tensors = [leaf for leaf in tree_leaves(whole) if isinstance(leaf, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        sent = ring_bytes(kind, size, _ranks(func, args))
        self.bytes[self.phase, kind] += round(sent)
        self.calls[self.phase, kind] += 1

    def take(self) -> tuple[Mapping[tuple[str, str], int], Mapping[tuple[str, str], int]]:
        """Bytes and calls since the last call of this method."""
        taken = (self.bytes, self.calls)
        self.bytes, self.calls = Counter(), Counter()
        return taken


def _ranks(func: Any, args: tuple[Any, ...]) -> int:
    """Size of the group that an operation is called on."""
    if func.namespace == "_c10d_functional":
        return int(_resolve_process_group(args[-1]).size())
    return next(
        int(dist.ProcessGroup.unbox(arg).size()) for arg in args if isinstance(arg, torch.ScriptObject)
    )
