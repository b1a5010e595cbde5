"""GLM-4.1V (arXiv 2507.01006): the time of a frame stands behind it, in whole seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vcr1.policy.families.base import Family


@dataclass(frozen=True)
class Glm4V(Family):
    """Frames are written with the tokens of images; ``mm_token_type_ids`` tells those of videos.

    Its generation config stops at three tokens; the chat goes on with ``<|user|>`` behind an answer.
    """

    name: str = "glm4v"
    lora_targets: str = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_up_proj|down_proj)"
    frames_are_grids: bool = True
    gated_vision: bool = True
    end_token: str | None = "<|user|>"

    def vision_intermediate(self, vision_config: Any) -> int:
        """Return ``out_hidden_size``: its ``intermediate_size`` is that of the merger."""
        return int(vision_config.out_hidden_size)

    def merger_parameters(self, config: Any) -> int:
        """Return those of the convolution that merges patches, of a projection and of a gated MLP."""
        vision, hidden = config.vision_config, config.get_text_config().hidden_size
        merged = vision.hidden_size * vision.spatial_merge_size**2 * vision.out_hidden_size
        return int(merged + hidden * hidden + 3 * hidden * vision.intermediate_size)


FAMILY = Glm4V()
