"""Attention of packed groups without a mask over everything: a prompt is a stem, its completions branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Branches:
    """One group: its prompt, and T tokens of its completions behind it.

    Attributes:
        stem: tokens of the prompt (L).
        length: tokens of all completions (T).
        bias: ``[T, L + T]`` added to the scores: 0 where a completion's token looks, at its whole prompt and
            at its own completion so far, and minus infinity elsewhere.
    """

    stem: int
    length: int
    bias: Tensor

    @classmethod
    def of(cls, stem: int, counts: list[int], dtype: torch.dtype, device: torch.device) -> Self:
        """Return the group of a prompt of ``stem`` tokens and completions of ``counts`` tokens."""
        owner = torch.arange(len(counts), device=device).repeat_interleave(
            torch.tensor(counts, device=device)
        )
        own = (owner[:, None] == owner).tril()
        bias = torch.zeros(len(owner), stem + len(owner), dtype=dtype, device=device)
        bias[:, stem:].masked_fill_(~own, -torch.inf)
        return cls(stem, len(owner), bias)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """Groups one behind the other in a single row; see :class:`~vcr1.policy.attention.grouped.GroupLayout`.

    A prompt attends causally without any mask, so that a kernel may skip what lies ahead; its completions
    attend to it and to themselves under a small one.
    """

    groups: tuple[Branches, ...]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Return attention of one layer: ``[1, H, S, D]`` for ``query`` of that shape."""
        repeats = query.shape[1] // key.shape[1]
        parts = []
        start = 0
        for group in self.groups:
            stem, end = start + group.stem, start + group.stem + group.length
            prompt, both = slice(start, stem), slice(start, end)
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, prompt],
                    key[:, :, prompt],
                    value[:, :, prompt],
                    is_causal=True,
                    scale=scaling,
                    dropout_p=dropout,
                    enable_gqa=repeats > 1,
                )
            )
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, stem:end],
                    # Under a mask, the fast kernels take a key for every head only.
                    key[:, :, both].repeat_interleave(repeats, 1) if repeats > 1 else key[:, :, both],
                    value[:, :, both].repeat_interleave(repeats, 1) if repeats > 1 else value[:, :, both],
                    attn_mask=group.bias,
                    scale=scaling,
                    dropout_p=dropout,
                )
            )
            start = end
        return torch.cat(parts, 2)
