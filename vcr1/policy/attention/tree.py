"""Attention of packed groups without a mask over everything: a prompt is a stem, its completions branches."""

from __future__ import annotations

import itertools
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
        places: for each set of completions of about one length, ``[N, C]`` where their tokens stand among the
            T, padded behind their end with 0.
        kept: ``[T]`` places of the T tokens in all of these sets, one behind the other.
    """

    stem: int
    length: int
    places: tuple[Tensor, ...]
    kept: Tensor

    @classmethod
    def of(cls, stem: int, counts: list[int], device: torch.device) -> Self:
        """Return the group of a prompt of ``stem`` tokens and completions of ``counts`` tokens."""
        starts = [0, *itertools.accumulate(counts)]
        sets: list[list[int]] = []
        for number in sorted(range(len(counts)), key=lambda number: -counts[number]):
            # Less than half of a set is padding.
            if sets and 2 * counts[number] >= counts[sets[-1][0]]:
                sets[-1].append(number)
            elif counts[number]:
                sets.append([number])
        places, found, end = [], torch.empty(starts[-1], dtype=torch.long), 0
        for numbers in sets:
            own = torch.tensor([counts[number] for number in numbers])[:, None]
            column = torch.arange(int(own[0]))
            where = torch.tensor([starts[number] for number in numbers])[:, None] + column
            found[where[column < own]] = end + (column < own).flatten().nonzero()[:, 0]
            places.append(where.masked_fill(column >= own, 0).to(device))
            end += where.numel()
        return cls(stem, starts[-1], tuple(places), found.to(device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """Return attention ``[1, H, T, D]`` of the completions, each to its prompt and to itself.

        Completions lie side by side, so that the cost is linear in their number, and each sees the whole
        prompt and what comes before of its own.

        Args:
            query: ``[1, H, T, D]``.
            key: ``[1, Hkv, L + T, D]``.
            value: ``[1, Hkv, L + T, D]``.
            scaling: factor of the scores.
            dropout: share of the weights that is dropped.
        """
        # Under a mask, the fast kernels take a key for every head only.
        repeats = query.shape[1] // key.shape[1]
        seen = []
        for places in self.places:
            count, width = places.shape
            causal = torch.ones(width, self.stem + width, dtype=torch.bool, device=query.device)
            found = scaled_dot_product_attention(
                side_by_side(query, places),
                self._with_prompt(key, places).repeat_interleave(repeats, 1),
                self._with_prompt(value, places).repeat_interleave(repeats, 1),
                # What pads a completion stands behind all of its tokens: none of them sees it.
                attn_mask=causal.tril(self.stem),
                scale=scaling,
                dropout_p=dropout,
            )
            seen.append(found.transpose(0, 1).reshape(query.shape[1], count * width, -1))
        return torch.cat(seen, 1).index_select(1, self.kept)[None]

    def _with_prompt(self, tensor: Tensor, places: Tensor) -> Tensor:
        """Return ``[N, Hkv, L + C, D]``: the prompt before each completion of a set."""
        stem = tensor[:, :, : self.stem].expand(len(places), -1, -1, -1)
        return torch.cat([stem, side_by_side(tensor[:, :, self.stem :], places)], 2)


def side_by_side(tokens: Tensor, places: Tensor) -> Tensor:
    """Return ``[N, heads, C, D]`` of tokens ``[1, heads, T, D]`` at ``places`` ``[N, C]``."""
    return tokens[0].index_select(1, places.flatten()).unflatten(1, places.shape).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """Groups one behind the other in a single row; see :class:`~vcr1.policy.attention.grouped.GroupLayout`.

    A prompt attends causally without any mask, so that a kernel may skip what lies ahead; its completions
    attend to it and to themselves.
    """

    groups: tuple[Branches, ...]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Return attention of one layer: ``[1, H, S, D]`` for ``query`` of that shape."""
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
                    enable_gqa=query.shape[1] > key.shape[1],
                )
            )
            if group.length:
                parts.append(
                    group.attend(query[:, :, stem:end], key[:, :, both], value[:, :, both], scaling, dropout)
                )
            start = end
        return torch.cat(parts, 2)
