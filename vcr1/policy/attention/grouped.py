"""Where attention over a shared prompt enters a Hugging Face model: its own modules stay as they are.

Every attention layer looks its function up by name in transformers' registry and hands it all keyword
arguments of the forward. The functions registered here look for one of them, ``group_layout``: an object that
knows which token may look at which. Without it they are transformers' own, so that the model's plain
forward and ``generate`` work as before.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

GROUPED = {"sdpa": "vcr1_sdpa", "eager": "vcr1_eager"}
"""Transformers' implementations, and what they are called once they take a layout."""


class GroupLayout(Protocol):
    """Attention in which a layout decides which tokens see which."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Return attention of one layer.

        Args:
            layer: number of the layer.
            query: ``[B, H, S, D]``, rotated.
            key: ``[B, Hkv, S, D]`` of the same tokens, rotated.
            value: ``[B, Hkv, S, D]``.
            scaling: factor of the scores.
            dropout: share of the weights that is dropped.

        Returns:
            ``[B, H, S, D]``.
        """


def _eager(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Return the eager attention of the model's own file: transformers registers none."""
    output: tuple[Tensor, Tensor | None] = sys.modules[type(module).__module__].eager_attention_forward(
        module, *args, **kwargs
    )
    return output


def _grouped(plain: Any) -> Any:
    """An attention function that follows a layout where it is given one, and is ``plain`` otherwise."""

    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        group_layout: GroupLayout | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if group_layout is None:
            output: tuple[Tensor, Tensor | None] = plain(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
            )
            return output
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        seen = group_layout.attend(module.layer_idx, query, key, value, factor, dropout)
        return seen.transpose(1, 2).contiguous(), None

    return attend


for _name, _plain, _mask in (("sdpa", sdpa_attention_forward, sdpa_mask), ("eager", _eager, eager_mask)):
    AttentionInterface.register(GROUPED[_name], _grouped(_plain))
    # Under its own name a function needs its own mask: without one, a plain forward would see its padding.
    AttentionMaskInterface.register(GROUPED[_name], _mask)


def take_layouts(model: Any) -> None:
    """Let a model's language part take a ``group_layout``, once and for good.

    Not for the length of a forward: gradient checkpointing calls the attention again in the backward pass.

    Args:
        model: a Hugging Face model; one whose attention is neither ``sdpa`` nor ``eager`` is left as it is.
    """
    name = model.config.get_text_config()._attn_implementation
    if name in GROUPED:
        model.set_attn_implementation({"text_config": GROUPED[name]})


def takes_layouts(model: Any) -> bool:
    """Return whether the model's attention follows a ``group_layout``."""
    return model.config.get_text_config()._attn_implementation in GROUPED.values()
