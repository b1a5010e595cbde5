"""Qwen2-VL: a step of the temporal grid is one position, however long it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vcr1.policy.families.base import Family, VideoClock
from vcr1.policy.families.qwen2_5_vl import Qwen25VL
from vcr1.records import PromptInputs


@dataclass(frozen=True)
class Qwen2VL(Qwen25VL):
    """Positions count steps (arXiv 2409.12191, section 2.1)."""

    name: str = "qwen2_vl"
    inputs: tuple[str, ...] = Family.inputs
    gated_vision: bool = False

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Return one position for each step of the grid."""
        grids = inputs["video_grid_thw"]
        steps = torch.ones(len(grids), device=grids.device)
        return VideoClock(grids, steps, 1.0, self.text_after_video(config))

    def vision_width(self, vision_config: Any) -> int:
        """Return ``embed_dim``: its ``hidden_size`` is that of the language model."""
        return int(vision_config.embed_dim)


FAMILY = Qwen2VL()
