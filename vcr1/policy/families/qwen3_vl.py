"""Qwen3-VL: the times stand in the text between the frames, and features enter several layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vcr1.policy.families.base import Family


@dataclass(frozen=True)
class Qwen3VL(Family):
    """The features of the first K layers (deepstack) lie behind those of the embeddings."""

    name: str = "qwen3_vl"
    frames_are_grids: bool = True

    def features(self, output: Any) -> Iterator[Tensor]:
        """Yield features ``[tokens, (1 + K)·D]``: of the embeddings, then of the first K layers."""
        lengths = [len(feature) for feature in output.pooler_output]
        # Up to transformers 5.17 a layer's features of all videos are one tensor.
        layers = [
            layer.split(lengths) if isinstance(layer, Tensor) else layer
            for layer in output.deepstack_features
        ]
        for video, feature in enumerate(output.pooler_output):
            yield torch.cat([feature, *(layer[video] for layer in layers)], -1)

    def deep_inputs(self, is_video: Tensor, features: list[Tensor], width: int) -> dict[str, Any]:
        """Return the places of the video's tokens and what each of the first K layers adds there."""
        return {
            "visual_pos_masks": is_video,
            "deepstack_visual_embeds": list(torch.cat(features).split(width, 1)),
        }


FAMILY = Qwen3VL()
