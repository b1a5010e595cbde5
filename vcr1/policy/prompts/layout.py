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

from vcr1.policy.families import VideoClock, family_of
from vcr1.records import PromptInputs

VIDEO_TYPE = 2
"""Value of ``mm_token_type_ids`` at the tokens of videos."""


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """P prompts, padded on the left to the longest, so that all completions start in the same column.

    Attributes:
        embeds: ``[P, L, D]`` token embeddings with the video features in place.
        attention_mask: ``[P, L]`` int64, 1 at prompt tokens.
        position_ids: ``[3, P, L]`` M-RoPE positions (time, height, width).
        next_position: ``[P]`` the position of a completion's first token, equal in all three axes.
        is_video: ``[P, L]`` bool, True at the tokens of videos.
        deep_features: P tensors ``[video tokens, K·D]`` that are added to the hidden states of the first K
            layers (Qwen3-VL); K is 0 in other families.
    """

    embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    next_position: Tensor
    is_video: Tensor
    deep_features: tuple[Tensor, ...]

    @property
    def lengths(self) -> list[int]:
        """Return tokens of each prompt."""
        lengths: list[int] = self.attention_mask.sum(1).tolist()
        return lengths

    def alone(self, row: int) -> PromptLayout:
        """Return one of the prompts without its padding."""
        start = self.embeds.shape[1] - self.lengths[row]
        rows = slice(row, row + 1)
        return PromptLayout(
            embeds=self.embeds[rows, start:],
            attention_mask=self.attention_mask[rows, start:],
            position_ids=self.position_ids[:, rows, start:],
            next_position=self.next_position[rows],
            is_video=self.is_video[rows, start:],
            deep_features=self.deep_features[rows],
        )


def video_features(model: Any, inputs: list[PromptInputs]) -> list[Tensor | None]:
    """Return one vision pass over all videos of the prompts.

    Returns:
        P tensors ``[tokens, D]``, the features in the order of the placeholders; None without a video.
        A family whose features enter K layers more puts those behind them: ``[tokens, (1 + K)·D]``.
    """
    videos = [item for item in inputs if "video_grid_thw" in item]
    if not videos:
        return [None] * len(inputs)
    pixels = torch.cat([item["pixel_values_videos"] for item in videos])
    grids = torch.cat([item["video_grid_thw"] for item in videos])
    per_video = family_of(model).features(model.get_video_features(pixels, grids, return_dict=True))
    return [
        torch.cat([next(per_video) for _ in item["video_grid_thw"]]) if "video_grid_thw" in item else None
        for item in inputs
    ]


def prompt_positions(model: Any, inputs: PromptInputs) -> tuple[Tensor, int]:
    """Return M-RoPE positions of one prompt.

    Returns:
        ``[3, L]`` positions, and the position at which a completion goes on.
    """
    length = inputs["input_ids"].shape[1]
    if "video_grid_thw" not in inputs:
        return torch.arange(length, device=inputs["input_ids"].device).expand(3, -1), length
    positions = mrope_positions(
        inputs["mm_token_type_ids"][0],
        family_of(model).clock(model.config, inputs),
        merge=model.config.vision_config.spatial_merge_size,
    )
    return positions, int(positions[:, -1].max()) + 1


def mrope_positions(token_types: Tensor, clock: VideoClock, *, merge: int) -> Tensor:
    """Compute the positions in time, height and width of a prompt with videos.

    Text counts up, equal on all axes. A video's token lies at its step of the temporal grid times the step's
    seconds times ``tokens_per_second``, rounded down, and at its row and column. The text behind a video goes
    on by the clock's rule. Sources: arXiv 2409.12191, section 2.1 (M-RoPE; text after a video starts at the
    largest position plus 1), and arXiv 2502.13923, section 2.1.2 (real seconds).

    vcr1 computes positions itself because the libraries differ: transformers before 5.23 rounds the seconds
    of a step to whole ones, and transformers 5.3 to 5.23 ignores time where the text goes on.

    Args:
        token_types: ``[L]`` 0 at text, 2 at the tokens of videos.
        clock: grids and times of the prompt's videos.
        merge: patches on a side that make one token.

    Returns:
        ``[3, L]`` int64.
    """
    device = token_types.device
    parts: list[Tensor] = []
    position = 0
    videos = iter(zip(clock.grids.tolist(), clock.seconds_per_grid, strict=True))
    for is_video, run in itertools.groupby((token_types == VIDEO_TYPE).tolist()):
        length = len(list(run))
        if not is_video:
            parts.append((position + torch.arange(length, device=device)).expand(3, -1))
            position += length
            continue
        (steps, height, width), seconds = next(videos)
        sides = (torch.arange(height // merge, device=device), torch.arange(width // merge, device=device))
        time = (torch.arange(steps, device=device) * (clock.tokens_per_second * seconds)).long()
        parts.append(position + torch.stack(torch.meshgrid(time, *sides, indexing="ij")).flatten(1))
        if clock.text_after_video == "largest":
            position = int(parts[-1].max()) + 1
        else:
            position += max(height, width) // merge
    return torch.cat(parts, 1)


def layout_prompts(model: Any, inputs: list[PromptInputs], features: list[Tensor | None]) -> PromptLayout:
    """Return place P prompts for one forward.

    Args:
        model: a model of one of the known families, for conditional generation.
        inputs: P prompt inputs, whole.
        features: what :func:`video_features` returned for them.
    """
    longest = max(item["input_ids"].shape[1] for item in inputs)
    embeds, masks, positions, nexts, videos, deep = [], [], [], [], [], []
    for item, feature in zip(inputs, features, strict=True):
        ids = item["input_ids"][0]
        embed = model.get_input_embeddings()(ids)
        width = embed.shape[-1]
        is_video = torch.zeros_like(ids, dtype=torch.bool)
        if feature is not None:
            is_video = item["mm_token_type_ids"][0] == VIDEO_TYPE
            embed = embed.masked_scatter(is_video[:, None], feature[:, :width].to(embed.dtype))
        position, next_position = prompt_positions(model, item)
        pad = longest - len(ids)
        embeds.append(F.pad(embed, (0, 0, pad, 0)))
        masks.append(F.pad(item["attention_mask"][0], (pad, 0)))
        positions.append(F.pad(position, (pad, 0)))
        nexts.append(next_position)
        videos.append(F.pad(is_video, (pad, 0)))
        deep.append(embed.new_empty(0, 0) if feature is None else feature[:, width:])
    return PromptLayout(
        embeds=torch.stack(embeds),
        attention_mask=torch.stack(masks),
        position_ids=torch.stack(positions, 1),
        next_position=torch.tensor(nexts, device=embeds[0].device),
        is_video=torch.stack(videos),
        deep_features=tuple(deep),
    )


def deep_inputs(model: Any, is_video: Tensor, deep_features: tuple[Tensor, ...]) -> dict[str, Any]:
    """Return what a forward needs to add features to the hidden states of its first layers; mostly nothing.

    Args:
        model: the Hugging Face model.
        is_video: ``[B, S]`` bool.
        deep_features: ``[video tokens, K·D]`` each, in the order of the rows.
    """
    deep = [feature for feature in deep_features if feature.shape[1]]
    if not deep:
        return {}
    return family_of(model).deep_inputs(is_video, deep, model.config.get_text_config().hidden_size)
