"""Attention of packed groups by torch's flex attention: one kernel over the row that skips what is not seen.

A kernel is compiled for the GPU at hand, so whether it works is known there alone. It is tried before it is
used, forward and backward, against the attention of :mod:`~vcr1.policy.attention.tree`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from vcr1.errors import UserError
from vcr1.policy.attention.tree import Branches, TreeLayout

log = logging.getLogger(__name__)

KERNELS = ("auto", "sdpa", "flex")
HEAD_SIZES = (16, 32, 64, 128, 256)
"""Of a head, as the kernel's blocks want them."""
TOLERANCES = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-4}
"""How far outputs and gradients may be from those of SDPA, ``|found - expected| / |expected|``."""
TRIALS = (
    ((150, (40, 0, 7)), (33, (5, 90, 64))),
    ((300, (1, 130)), (70, (20, 20)), (129, (3, 200))),  # another length: kernels of any length are compiled
)
"""Groups that a kernel is tried on: tokens of each prompt and of its completions, no multiples of blocks."""

Attention = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class FlexLayout:
    """Groups one behind the other in a single row; see :class:`~vcr1.policy.attention.grouped.GroupLayout`.

    Attributes:
        mask: which of the row's tokens see which.
        kernel: flex attention, compiled or not.
    """

    mask: BlockMask
    kernel: Attention

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Return attention of one layer: ``[1, H, S, D]`` for ``query`` of that shape. Never drops."""
        device, dtype = query.device.type, value.dtype
        if torch.is_autocast_enabled(device):  # SDPA casts by itself
            dtype = torch.get_autocast_dtype(device)
        return self.kernel(
            query.to(dtype),
            key.to(dtype),
            value.to(dtype),
            block_mask=self.mask,
            # Left out where it is the usual one: a number might be compiled as an input.
            scale=None if scaling == query.shape[-1] ** -0.5 else scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )


def flex_layout(
    groups: list[tuple[int, list[int]]], device: torch.device, kernel: Attention | None = None
) -> FlexLayout:
    """Return the layout of groups, each a prompt's tokens and those of its completions.

    Args:
        groups: as :meth:`~vcr1.policy.attention.tree.Branches.of` takes them.
        device: of the row.
        kernel: what computes; None for flex attention, compiled but on a CPU.
    """
    sizes = [stem + sum(counts) for stem, counts in groups]
    group = torch.arange(len(groups)).repeat_interleave(torch.tensor(sizes)).to(device)
    firsts = accumulate((len(counts) for _, counts in groups), initial=0)
    # -1 at prompts, else which of all completions a token belongs to.
    parts = [
        torch.tensor([-1, *range(first, first + len(counts))]).repeat_interleave(
            torch.tensor([stem, *counts])
        )
        for first, (stem, counts) in zip(firsts, groups, strict=False)
    ]
    branch = torch.cat(parts).to(device)

    def sees(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        own = (branch[column] < 0) | (branch[column] == branch[row])
        return (row >= column) & (group[row] == group[column]) & own

    mask = create_block_mask(sees, None, None, sum(sizes), sum(sizes), device=device)
    if kernel is None:
        kernel = cast(Attention, flex_attention) if device.type == "cpu" else _compiled()
    return FlexLayout(mask, kernel)


@functools.cache
def _compiled() -> Attention:
    """Flex attention as a kernel, compiled at its first call and once more for any length."""
    return cast(Attention, torch.compile(flex_attention))


def takes_flex(wanted: str, model: Any, device: torch.device) -> bool:
    """Return whether training passes in the split form go through flex attention.

    Args:
        wanted: ``sdpa``, ``flex``, or ``auto`` for flex on a GPU where it passes the trial.
        model: the Hugging Face model.
        device: where it is.

    Raises:
        UserError: ``flex`` is wanted where it does not work.
    """
    if wanted == "sdpa" or (wanted == "auto" and device.type == "cpu"):
        return False
    text = model.config.get_text_config()
    heads, shared = text.num_attention_heads, text.num_key_value_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    dtype = model.get_input_embeddings().weight.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    reason = _obstacle(getattr(text, "attention_dropout", 0.0), size, device)
    if reason is None and (device.type != "cpu" or torch.is_grad_enabled()):
        reason = trial(heads, shared, size, dtype, device)
    if reason is None:
        return True
    if wanted == "flex":
        raise UserError(f"model.tree_attention=flex: {reason}; set model.tree_attention=sdpa")
    _say_once(f"model.tree_attention=auto takes sdpa: {reason}")
    return False


def _obstacle(dropout: float, size: int, device: torch.device) -> str | None:
    """Return what speaks against flex attention before it is tried."""
    if dropout:
        return "flex attention cannot drop weights, as the model's configuration asks (attention_dropout)"
    if device.type == "cpu":
        return None
    if find_spec("triton") is None:
        return "flex attention needs triton, which is not installed"
    if size not in HEAD_SIZES:
        return f"flex attention wants heads of {', '.join(map(str, HEAD_SIZES))}, the model's have {size}"
    return None


@functools.cache
def trial(
    heads: int,
    shared: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    kernel: Attention | None = None,
) -> str | None:
    """Try flex attention on toy groups, forward and backward, against SDPA; once for each kind of model.

    Args:
        heads: of the queries.
        shared: heads of the keys and values.
        size: of a head.
        dtype: that attention computes in.
        device: where.
        kernel: what is tried; None for what a layout would take.

    Returns:
        What is wrong with it; None where it works.
    """
    if dtype not in TOLERANCES:
        return f"flex attention is not used in {dtype}"
    # Whoever calls may be inside of no_grad, inference_mode or autocast.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for groups in TRIALS:
            try:
                whole = [(stem, list(counts)) for stem, counts in groups]
                errors = _errors(whole, heads, shared, size, dtype, device, kernel)
            except Exception as error:  # whatever a compiler for an unknown GPU may raise
                return f"flex attention fails here ({type(error).__name__}: {_first_line(error)})"
            for name, found in errors.items():
                if not found <= TOLERANCES[dtype]:
                    return f"flex attention computes another {name} here (off by {found:.2g} of its norm)"
    return None


def _errors(
    groups: list[tuple[int, list[int]]],
    heads: int,
    shared: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    kernel: Attention | None,
) -> dict[str, float]:
    """Relative distances of a layer's output and gradients by flex attention from those by SDPA."""
    length = sum(stem + sum(counts) for stem, counts in groups)
    chance = torch.Generator().manual_seed(0)
    query, key, value, slope = (
        torch.randn(1, count, length, size, generator=chance).to(device, dtype)
        for count in (heads, shared, shared, heads)
    )
    tree = TreeLayout(tuple(Branches.of(stem, counts, device) for stem, counts in groups))
    results = []
    for layout in (tree, flex_layout(groups, device, kernel)):
        inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        output = layout.attend(0, inputs[0], inputs[1], inputs[2], size**-0.5, 0.0)
        results.append([output.detach(), *torch.autograd.grad(output, inputs, slope)])
    names = ("output", "gradient of the queries", "gradient of the keys", "gradient of the values")
    pairs = zip(*results, strict=True)
    return {
        name: float((found.double() - expected.double()).norm() / expected.double().norm())
        for name, (expected, found) in zip(names, pairs, strict=True)
    }


@functools.cache
def _say_once(message: str) -> None:
    """Policy and reference find the same."""
    log.warning("%s", message)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
