"""Prompts and their completions laid out for one forward that computes every prompt once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vcr1.policy.attention.flex import flex_layout
from vcr1.policy.attention.grouped import GroupLayout
from vcr1.policy.attention.tree import Branches, TreeLayout
from vcr1.policy.families import family_of
from vcr1.policy.prompts.layout import PromptLayout, deep_inputs


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """Groups in rows, and where each completion is predicted.

    Attributes:
        embeds: ``[B, S, D]``; dense: a row per prompt, ``S = L + G·C``; split: one row of all groups.
        position_ids: ``[3, B, S]``; every completion goes on where its prompt ends.
        is_video: ``[B, S]`` bool.
        deep_features: see :class:`~vcr1.policy.prompts.layout.PromptLayout`.
        attention_mask: dense: ``[B, 1, S, S]`` bool, True where a row's token may look at a column's.
        tree: split: the layout that the attention follows.
        predicts: ``[N]`` places in the rows, one behind the other, that predict a completion's token.
        scored: ``[N]`` places of those tokens in ``[P, G, C]``, flattened.
        prompt_places: P slices of the rows, one behind the other, that hold the prompts without padding.
    """

    embeds: Tensor
    position_ids: Tensor
    is_video: Tensor
    deep_features: tuple[Tensor, ...]
    attention_mask: Tensor | None
    tree: GroupLayout | None
    predicts: Tensor
    scored: Tensor
    prompt_places: tuple[slice, ...]


def pack_dense(layout: PromptLayout, completion_embeds: Tensor) -> PackedGroups:
    """Return a row for each prompt with all its completions behind it, padding included, under one mask.

    Few large operations: the faster form as long as the prompts are short.

    Args:
        layout: P prompts.
        completion_embeds: ``[P, G, C, D]`` embeddings of the completions.
    """
    num_prompts, prompt_length = layout.attention_mask.shape
    _, num_generations, length, _ = completion_embeds.shape
    device = layout.attention_mask.device
    # -1 for the prompt, else which completion a column belongs to.
    owner = torch.cat(
        [
            torch.full((prompt_length,), -1, device=device),
            torch.arange(num_generations, device=device).repeat_interleave(length),
        ]
    )
    column = torch.arange(len(owner), device=device)
    visible = (column[:, None] >= column) & ((owner == -1) | (owner[:, None] == owner))
    is_token = F.pad(layout.attention_mask.bool(), (0, num_generations * length), value=True)
    # A padding column looks at itself, or its softmax over nothing would be NaN and spread.
    mask = visible & is_token[:, None, :] | torch.eye(len(owner), dtype=torch.bool, device=device)
    steps = torch.arange(length, device=device).repeat(num_generations)
    positions = (layout.next_position[:, None] + steps).expand(3, num_prompts, -1)
    # What predicts a completion: the prompt's last token its first, and each of its tokens the next.
    before = torch.arange(prompt_length - 1, len(owner) - 1, device=device)
    before = torch.where(steps == 0, prompt_length - 1, before)
    starts = torch.arange(num_prompts, device=device)[:, None] * len(owner)
    ends = [row * len(owner) + prompt_length for row in range(num_prompts)]
    return PackedGroups(
        embeds=torch.cat([layout.embeds, completion_embeds.flatten(1, 2)], 1),
        position_ids=torch.cat([layout.position_ids, positions], 2),
        is_video=F.pad(layout.is_video, (0, num_generations * length)),
        deep_features=layout.deep_features,
        attention_mask=mask[:, None],
        tree=None,
        predicts=(starts + before).flatten(),
        scored=torch.arange(num_prompts * num_generations * length, device=device),
        prompt_places=tuple(slice(end - count, end) for end, count in zip(ends, layout.lengths, strict=True)),
    )


def pack_split(
    layout: PromptLayout, completion_embeds: Tensor, mask: Tensor, flex: bool = False
) -> PackedGroups:
    """Return all groups in one row without any padding, for the attention of :class:`TreeLayout`.

    Args:
        layout: P prompts.
        completion_embeds: ``[P, G, C, D]`` embeddings of the completions.
        mask: ``[P, G, C]`` bool, True at their tokens.
        flex: for that of :class:`~vcr1.policy.attention.flex.FlexLayout` instead.
    """
    device = mask.device
    length = mask.shape[2]
    embeds, positions, videos, predicts, scored, places = [], [], [], [], [], []
    end = 0
    lengths = list(zip(layout.lengths, mask.sum(-1).tolist(), strict=True))
    for row in range(len(mask)):
        prompt = layout.alone(row)
        size = prompt.embeds.shape[1]
        kept = mask[row].flatten().nonzero()[:, 0]
        step = kept % length
        embeds += [prompt.embeds[0], completion_embeds[row].flatten(0, 1)[kept]]
        positions += [prompt.position_ids[:, 0], (prompt.next_position + step).expand(3, -1)]
        videos.append(F.pad(prompt.is_video[0], (0, len(kept))))
        places.append(slice(end, end + size))
        end += size
        before = torch.arange(end - 1, end - 1 + len(kept), device=device)
        predicts.append(torch.where(step == 0, end - 1, before))
        scored.append(row * mask[row].numel() + kept)
        end += len(kept)
    tree: GroupLayout
    if flex:
        tree = flex_layout(lengths, device)
    else:
        tree = TreeLayout(tuple(Branches.of(stem, counts, device) for stem, counts in lengths))
    return PackedGroups(
        embeds=torch.cat(embeds)[None],
        position_ids=torch.cat(positions, 1)[:, None],
        is_video=torch.cat(videos)[None],
        deep_features=layout.deep_features,
        attention_mask=None,
        tree=tree,
        predicts=torch.cat(predicts),
        scored=torch.cat(scored),
        prompt_places=tuple(places),
    )


def forward_packed(model: Any, packed: PackedGroups) -> Tensor:
    """Return last hidden states ``[B·S, D]`` of packed groups; differentiable."""
    mask = packed.attention_mask
    if mask is not None and not model.config._attn_implementation.endswith("sdpa"):
        # sdpa takes a bool mask; eager adds its mask to the scores.
        lowest = torch.finfo(packed.embeds.dtype).min
        mask = torch.zeros(mask.shape, dtype=packed.embeds.dtype, device=mask.device).masked_fill(
            ~mask, lowest
        )
    hidden: Tensor = (
        family_of(model)
        .language(model)(
            inputs_embeds=packed.embeds,
            position_ids=packed.position_ids,
            attention_mask=mask,
            use_cache=False,
            **deep_inputs(model, packed.is_video, packed.deep_features),
            **({} if packed.tree is None else {"group_layout": packed.tree}),
        )
        .last_hidden_state
    )
    return hidden.flatten(0, 1)
