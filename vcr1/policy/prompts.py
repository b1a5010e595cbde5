"""Prompts laid out for a forward: positions, embeddings, left padding. One function for every forward.

Rollout, policy, reference and evaluation all lay their prompts out here, so that no forward can see
other positions, and so other times, than another.
"""

from __future__ import annotations

import itertools
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
    """M-RoPE positions of one prompt.

    Returns:
        ``[3, L]`` positions, and the position at which a completion goes on.
    """
    length = inputs["input_ids"].shape[1]
    if "video_grid_thw" not in inputs:
        return torch.arange(length, device=inputs["input_ids"].device).expand(3, -1), length
    vision = model.config.vision_config
    positions = mrope_positions(
        inputs["mm_token_type_ids"][0],
        inputs["video_grid_thw"],
        inputs["second_per_grid_ts"],
        tokens_per_second=vision.tokens_per_second,
        merge=vision.spatial_merge_size,
    )
    return positions, int(positions[0, -1]) + 1


def mrope_positions(
    token_types: Tensor, grids: Tensor, seconds_per_grid: Tensor, *, tokens_per_second: float, merge: int
) -> Tensor:
    """Positions in time, height and width of a prompt with videos: Qwen2.5-VL's rule.

    Text counts up, equal on all axes. A video's token lies at its step of the temporal grid times the
    step's seconds times ``tokens_per_second``, rounded down, and at its row and column; the text behind
    goes on after the larger side of the frame. Source: arXiv 2502.13923, section 2.1.2, in the form of
    ``get_rope_index`` of transformers 5.23. Written out here, because older versions round the seconds
    of a step to whole ones: 29.97 frames a second, sampled at 2, then all lie at the same time.

    Args:
        token_types: ``[L]`` 0 at text, 2 at the tokens of videos.
        grids: ``[videos, 3]`` patches in time, height and width.
        seconds_per_grid: ``[videos]`` seconds between two steps of the temporal grid.
        tokens_per_second: positions in a second.
        merge: patches on a side that make one token.

    Returns:
        ``[3, L]`` int64.
    """
    device = token_types.device
    parts: list[Tensor] = []
    position = 0
    videos = iter(zip(grids.tolist(), seconds_per_grid, strict=True))
    for is_video, run in itertools.groupby((token_types == 2).tolist()):
        length = len(list(run))
        if not is_video:
            parts.append((position + torch.arange(length, device=device)).expand(3, -1))
            position += length
            continue
        (steps, height, width), seconds = next(videos)
        sides = (torch.arange(height // merge, device=device), torch.arange(width // merge, device=device))
        time = (torch.arange(steps, device=device) * (tokens_per_second * seconds)).long()
        parts.append(position + torch.stack(torch.meshgrid(time, *sides, indexing="ij")).flatten(1))
        position += max(height, width) // merge
    return torch.cat(parts, 1)


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
