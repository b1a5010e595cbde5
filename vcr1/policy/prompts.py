"""Prompts laid out for a forward: positions, embeddings, left padding. One function for every forward.

Rollout, policy, reference and evaluation all lay their prompts out here, so that no forward can see
other positions, and so other times, than another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vcr1.records import PromptInputs


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """P prompts, padded on the left to the longest, so that all completions start in the same column.

    Attributes:
        embeds: ``[P, L, D]`` token embeddings with the video features in place.
        attention_mask: ``[P, L]`` int64, 1 at prompt tokens.
        position_ids: ``[3, P, L]`` M-RoPE positions (time, height, width).
        next_position: ``[P]`` the position of a completion's first token, equal in all three axes.
    """

    embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    next_position: Tensor


def video_features(model: Any, inputs: list[PromptInputs]) -> list[Tensor | None]:
    """One vision pass over all videos of the prompts.

    Returns:
        P tensors ``[tokens, D]``, the features in the order of the placeholders; None without a video.
    """
    videos = [item for item in inputs if "video_grid_thw" in item]
    if not videos:
        return [None] * len(inputs)
    pixels = torch.cat([item["pixel_values_videos"] for item in videos])
    grids = torch.cat([item["video_grid_thw"] for item in videos])
    per_video = iter(model.get_video_features(pixels, grids, return_dict=True).pooler_output)
    return [
        torch.cat([next(per_video) for _ in item["video_grid_thw"]]) if "video_grid_thw" in item else None
        for item in inputs
    ]


def prompt_positions(model: Any, inputs: PromptInputs) -> tuple[Tensor, int]:
    """M-RoPE positions of one prompt, by the model's own rule.

    Returns:
        ``[3, L]`` positions, and the position at which a completion goes on.
    """
    length = inputs["input_ids"].shape[1]
    if "video_grid_thw" not in inputs:
        return torch.arange(length, device=inputs["input_ids"].device).expand(3, -1), length
    timing = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
    positions, _ = model.model.get_rope_index(**{name: inputs[name] for name in timing})
    # After the prompt's last token, which is text. The model's own delta counts from the largest position
    # instead, which a long video's time axis can hold; neither its forward nor ``generate`` goes on there.
    return positions[:, 0], int(positions[0, 0, -1]) + 1


def lay_out(model: Any, inputs: list[PromptInputs], features: list[Tensor | None]) -> PromptLayout:
    """Place P prompts for one forward.

    Args:
        model: a Qwen2.5-VL for conditional generation.
        inputs: P prompt inputs, whole.
        features: what :func:`video_features` returned for them.
    """
    longest = max(item["input_ids"].shape[1] for item in inputs)
    embeds, masks, positions, nexts = [], [], [], []
    for item, feature in zip(inputs, features, strict=True):
        ids = item["input_ids"][0]
        embed = model.get_input_embeddings()(ids)
        if feature is not None:
            places = (ids == model.config.video_token_id).unsqueeze(-1)
            embed = embed.masked_scatter(places, feature.to(embed.dtype))
        position, next_position = prompt_positions(model, item)
        pad = longest - len(ids)
        embeds.append(F.pad(embed, (0, 0, pad, 0)))
        masks.append(F.pad(item["attention_mask"][0], (pad, 0)))
        positions.append(F.pad(position, (pad, 0)))
        nexts.append(next_position)
    return PromptLayout(
        embeds=torch.stack(embeds),
        attention_mask=torch.stack(masks),
        position_ids=torch.stack(positions, 1),
        next_position=torch.tensor(nexts, device=embeds[0].device),
    )


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """P rows of a prompt and its G completions, S = L + G·C columns.

    Attributes:
        embeds: ``[P, S, D]``.
        mask: ``[P, 1, S, S]`` bool, True where a row's token may look at a column's.
        position_ids: ``[3, P, S]``; every completion goes on where the prompt ends.
    """

    embeds: Tensor
    mask: Tensor
    position_ids: Tensor


def pack(layout: PromptLayout, completion_embeds: Tensor) -> PackedGroups:
    """Put the completions of each prompt behind it in one row.

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
    return PackedGroups(
        embeds=torch.cat([layout.embeds, completion_embeds.flatten(1, 2)], 1),
        mask=mask[:, None],
        position_ids=torch.cat([layout.position_ids, positions], 2),
    )
