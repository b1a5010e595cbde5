"""What differs between the families of models: their inputs, features, positions and LoRA targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vcr1.records import PromptInputs, VideoClip

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Under the names of all three families.
VISION_PROJECTIONS = (
    *("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    *("fc1", "fc2", "linear_fc1", "linear_fc2"),
)


@dataclass(frozen=True, slots=True)
class VideoClock:
    """How the videos of a prompt lie in time, in the model's positions.

    Attributes:
        grids: ``[videos, 3]`` patches in time, height and width, one row per run of video tokens.
        seconds_per_grid: ``[videos]`` seconds between two steps of the temporal grid.
        tokens_per_second: positions in a second.
    """

    grids: Tensor
    seconds_per_grid: Tensor
    tokens_per_second: float


@dataclass(frozen=True)
class Family:
    """A family of models: Qwen2.5-VL's way, which its relatives change where they differ.

    Attributes:
        name: ``model_type`` in the model's configuration.
        inputs: what the processor has to return for a prompt with a video. All of it is needed: a missing
            ``mm_token_type_ids`` turns M-RoPE into one-dimensional positions, a missing
            ``second_per_grid_ts`` loses real time, both without an error from the model.
        lora_targets: a regular expression of the modules that LoRA adapts by default: the language model's
            projections.
        lora_vision_targets: the same of the vision tower: the projections of its blocks.
    """

    name: str = "qwen2_5_vl"
    inputs: tuple[str, ...] = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values_videos",
        "video_grid_thw",
        "second_per_grid_ts",
    )
    lora_targets: str = rf".*language_model.*\.({'|'.join(PROJECTIONS)})"
    lora_vision_targets: str = rf".*visual\.blocks.*\.({'|'.join(VISION_PROJECTIONS)})"

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """What the processor is told of a clip's source."""
        return {
            "total_num_frames": clip.total_frames,
            "fps": clip.source_fps,
            "frames_indices": list(clip.indices),
        }

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """The times of one prompt's videos: seconds of a step times ``tokens_per_second``."""
        return VideoClock(
            inputs["video_grid_thw"], inputs["second_per_grid_ts"], config.vision_config.tokens_per_second
        )

    def features(self, output: Any) -> Iterator[Tensor]:
        """Features ``[tokens, D]`` of one video after the other, out of ``get_video_features``."""
        yield from output.pooler_output


@dataclass(frozen=True)
class Qwen2VL(Family):
    """Qwen2-VL: a step of the temporal grid is one position, however long it lasts."""

    name: str = "qwen2_vl"
    inputs: tuple[str, ...] = Family.inputs[:-1]

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Steps are counted."""
        grids = inputs["video_grid_thw"]
        return VideoClock(grids, torch.ones(len(grids), device=grids.device), 1.0)


@dataclass(frozen=True)
class Qwen3VL(Family):
    """Qwen3-VL: the times stand in the text between the frames, and features enter several layers."""

    name: str = "qwen3_vl"
    inputs: tuple[str, ...] = Family.inputs[:-1]

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """A source of 1,000 frames a second: the processor then writes the frames' true times."""
        return {
            "total_num_frames": 1000 * clip.duration,
            "fps": 1000.0,
            "frames_indices": [round(1000 * time) for time in clip.timestamps],
        }

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Each step of a temporal grid is a run of tokens by itself: it needs no time."""
        grids = inputs["video_grid_thw"]
        steps = grids.repeat_interleave(grids[:, 0], 0).clone()
        steps[:, 0] = 1
        return VideoClock(steps, torch.zeros(len(steps), device=grids.device), 1.0)

    def features(self, output: Any) -> Iterator[Tensor]:
        """Features ``[tokens, (1 + K)·D]``: of the embeddings, and of the first K layers behind them."""
        lengths = [len(feature) for feature in output.pooler_output]
        # Up to transformers 5.17 a layer's features of all videos are one tensor.
        layers = [
            layer.split(lengths) if isinstance(layer, Tensor) else layer
            for layer in output.deepstack_features
        ]
        for video, feature in enumerate(output.pooler_output):
            yield torch.cat([feature, *(layer[video] for layer in layers)], -1)


QWEN2_5_VL = Family()
FAMILIES = {family.name: family for family in (QWEN2_5_VL, Qwen2VL(), Qwen3VL())}


def family_of(model: Any) -> Family:
    """The family of a Hugging Face model.

    Raises:
        KeyError: it is none of :data:`FAMILIES`.
    """
    return FAMILIES[model.config.model_type]
