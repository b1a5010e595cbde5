"""What a family of models tells vcr1 about itself; each family is a module beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vcr1.errors import UserError
from vcr1.records import PromptInputs, VideoClip

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Under the names of all families.
VISION_PROJECTIONS = (
    *("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    *("fc1", "fc2", "linear_fc1", "linear_fc2"),
)
PARTS = {
    "vision": ("model.visual",),
    "merger": ("model.visual.merger", "model.visual.deepstack_merger_list", "model.visual.downsample"),
    "language": ("model.language_model",),
    "head": ("lm_head",),
}
"""Parts of a model by name: the modules that a family has of these."""

TEXT_AFTER_VIDEO = ("largest", "frame")
"""Rules for the position of the text behind a video.

- ``largest``: the largest position so far plus 1, the video's times included. Published for Qwen2-VL
  (arXiv 2409.12191, section 2.1), and what the weights of Qwen2-VL and Qwen2.5-VL were trained with. Followed
  by transformers up to 5.2 and by vLLM.
- ``frame``: the video's first position plus the larger side of its frame in tokens, whatever its length.
  What transformers 5.3 to 5.23 do (issue 45381 there): right only for weights that were trained so.

A model whose frames are grids of their own (Qwen3-VL, GLM-4.1V) has the same positions under both.
"""
RULE_FIELD = "text_after_video"
"""Key of a model's ``config.json`` in which a checkpoint states its rule. Exports of vcr1 state it."""


@dataclass(frozen=True, slots=True)
class VideoClock:
    """Describes how the videos of a prompt lie in the model's positions.

    Attributes:
        grids: ``[videos, 3]`` patches in time, height and width, one row per run of video tokens.
        seconds_per_grid: ``[videos]`` seconds between two steps of the temporal grid.
        tokens_per_second: positions in a second.
        text_after_video: where the text behind a video goes on, one of :data:`TEXT_AFTER_VIDEO`.
    """

    grids: Tensor
    seconds_per_grid: Tensor
    tokens_per_second: float
    text_after_video: str = "largest"

    @classmethod
    def of_frames(cls, grids: Tensor) -> VideoClock:
        """Describe videos whose frames are runs of tokens of their own, with the times in the text between.

        Args:
            grids: ``[videos, 3]``.
        """
        steps = grids.repeat_interleave(grids[:, 0], 0).clone()
        steps[:, 0] = 1
        return cls(steps, torch.zeros(len(steps), device=grids.device), 1.0)


@dataclass(frozen=True)
class Family:
    """Describe a family of models that shares prompts; a family overrides what differs from these defaults.

    Attributes:
        name: ``model_type`` in the model's configuration.
        inputs: what the processor has to return for a prompt with a video. All of it is needed: a missing
            ``mm_token_type_ids`` turns M-RoPE into one-dimensional positions, without an error from the
            model.
        lora_targets: a regular expression of the modules that LoRA adapts by default: the language model's
            projections.
        lora_vision_targets: the same of the vision tower: the projections of its blocks.
        frames_are_grids: each frame is a run of tokens of its own, with its time in the text before or behind
            it; otherwise a video is one run, and its positions carry the times.
        gated_vision: the MLPs of the vision tower have a gate (SwiGLU) and its norms are RMSNorms.
        end_token: the token that ends an answer in the family's chat; None for the tokenizer's own.
    """

    name: str = ""
    inputs: tuple[str, ...] = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values_videos",
        "video_grid_thw",
    )
    lora_targets: str = rf".*language_model.*\.({'|'.join(PROJECTIONS)})"
    lora_vision_targets: str = rf".*visual\.blocks.*\.({'|'.join(VISION_PROJECTIONS)})"
    frames_are_grids: bool = False
    gated_vision: bool = False
    end_token: str | None = None

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """Return what the processor is told of a clip's source.

        A source of 1,000 frames a second: a processor that writes times into the text, as ``frame / fps``,
        then writes the frames' true times.
        """
        return {
            "total_num_frames": 1000 * clip.duration,
            "fps": 1000.0,
            "frames_indices": [round(1000 * time) for time in clip.timestamps],
        }

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Return the times of one prompt's videos in the model's positions."""
        return VideoClock.of_frames(inputs["video_grid_thw"])

    def text_after_video(self, config: Any) -> str:
        """Return the rule for the text behind a video: the checkpoint's own, else the published one.

        Raises:
            UserError: the checkpoint's ``config.json`` names an unknown rule.
        """
        rule = getattr(config, RULE_FIELD, None) or TEXT_AFTER_VIDEO[0]
        if rule not in TEXT_AFTER_VIDEO:
            raise UserError(
                f"config.json of the model: {RULE_FIELD}={rule}; vcr1 knows {', '.join(TEXT_AFTER_VIDEO)}"
            )
        return str(rule)

    def features(self, output: Any) -> Iterator[Tensor]:
        """Yield the features ``[tokens, D]`` of one video after the other, out of ``get_video_features``."""
        yield from output.pooler_output

    def deep_inputs(self, is_video: Tensor, features: list[Tensor], width: int) -> dict[str, Any]:
        """Return the arguments of a forward that bring features into several layers; only some families do.

        Args:
            is_video: ``[B, S]`` bool.
            features: ``[video tokens, K·D]`` each, in the order of the rows.
            width: D.
        """
        raise NotImplementedError(f"{self.name} has no features for several layers")

    def tower(self, model: Any) -> nn.Module:
        """Return the vision tower of a model."""
        tower: nn.Module = model.model.visual
        return tower

    def language(self, model: Any) -> nn.Module:
        """Return the language model, without its head."""
        language: nn.Module = model.model.language_model
        return language

    def blocks(self, model: Any) -> list[nn.Module]:
        """Return the transformer blocks of the vision tower and of the language model, in order."""
        return [*model.model.visual.blocks, *model.model.language_model.layers]

    def parts(self, model: Any, name: str) -> list[nn.Module]:
        """Return the modules of a model that :data:`PARTS` lists under a name."""
        modules = dict(model.named_modules())
        return [modules[place] for place in PARTS[name] if place in modules]

    def vision_width(self, vision_config: Any) -> int:
        """Return the width of the vision tower's residual stream."""
        return int(vision_config.hidden_size)

    def vision_intermediate(self, vision_config: Any) -> int:
        """Return the width inside the MLPs of the vision tower."""
        inner = getattr(vision_config, "intermediate_size", None)
        return int(inner or self.vision_width(vision_config) * vision_config.mlp_ratio)

    def merger_parameters(self, config: Any) -> int:
        """Return about how many parameters bring the tower's features to the language model's width.

        The default is a two-layer projection of the patches of a token, and one more for each layer of
        deepstack.
        """
        vision, hidden = config.vision_config, config.get_text_config().hidden_size
        wide = self.vision_width(vision) * vision.spatial_merge_size**2
        count = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or [])
        return count * wide * (wide + hidden)
