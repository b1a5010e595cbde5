"""What differs between the families of models: their inputs, features, positions and LoRA targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vcr1.errors import UserError
from vcr1.records import PromptInputs, VideoClip

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Under the names of all three families.
VISION_PROJECTIONS = (
    *("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    *("fc1", "fc2", "linear_fc1", "linear_fc2"),
)
PARTS = {
    "vision": ("model.visual",),
    "merger": ("model.visual.merger", "model.visual.deepstack_merger_list"),
    "language": ("model.language_model",),
    "head": ("lm_head",),
}
"""Parts of a model by name: the modules that a family has of these."""
MERGERS = ("multi_modal_projector", "connector", "merger", "projector", "aligner", "embed_vision")
"""What transformers' families call that which takes the vision tower's features to the language model."""


TEXT_AFTER_VIDEO = ("largest", "frame")
"""Rules for the position of the text behind a video.

- ``largest``: the largest position so far plus 1, the video's times included. Published for Qwen2-VL
  (arXiv 2409.12191, section 2.1), and what the weights of Qwen2-VL and Qwen2.5-VL were trained with. Followed
  by transformers up to 5.2 and by vLLM.
- ``frame``: the video's first position plus the larger side of its frame in tokens, whatever its length.
  What transformers 5.3 to 5.23 do (issue 45381 there): right only for weights that were trained so.

A model whose frames are grids of their own (Qwen3-VL) has the same positions under both.
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
        """Return the times of one prompt's videos: seconds of a step times ``tokens_per_second``."""
        return VideoClock(
            inputs["video_grid_thw"],
            inputs["second_per_grid_ts"],
            config.vision_config.tokens_per_second,
            self.text_after_video(config),
        )

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
        """Features ``[tokens, D]`` of one video after the other, out of ``get_video_features``."""
        yield from output.pooler_output

    def parts(self, model: Any, name: str) -> list[nn.Module]:
        """The modules of a model that are called so in :data:`PARTS`."""
        modules = dict(model.named_modules())
        return [modules[place] for place in PARTS[name] if place in modules]


@dataclass(frozen=True)
class Qwen2VL(Family):
    """Qwen2-VL: a step of the temporal grid is one position, however long it lasts."""

    name: str = "qwen2_vl"
    inputs: tuple[str, ...] = Family.inputs[:-1]

    def clock(self, config: Any, inputs: PromptInputs) -> VideoClock:
        """Count the steps of the grid."""
        grids = inputs["video_grid_thw"]
        steps = torch.ones(len(grids), device=grids.device)
        return VideoClock(grids, steps, 1.0, self.text_after_video(config))


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


@dataclass(frozen=True)
class OtherFamily(Family):
    """A family without an adapter: what transformers' models and processors have in common.

    ``inputs`` is empty: whatever the processor returns is passed on. There is no clock and nothing to be
    done with features, since the model's own forward sees to both; see :mod:`vcr1.policy.plain`.
    """

    inputs: tuple[str, ...] = ()
    lora_targets: str = rf".*(language_model|text_model).*\.({'|'.join(PROJECTIONS)})"

    def metadata(self, clip: VideoClip) -> dict[str, Any]:
        """A source of 1,000 frames a second, so that ``frame / fps`` is a frame's true time."""
        return {
            "total_num_frames": round(1000 * clip.duration),
            "fps": 1000.0,
            "frames_indices": [round(1000 * time) for time in clip.timestamps],
            "duration": clip.duration,
            "height": clip.frames.shape[-2],
            "width": clip.frames.shape[-1],
        }

    def parts(self, model: Any, name: str) -> list[nn.Module]:
        """What transformers finds of that name; ``vision`` is the tower alone, without the merger.

        Raises:
            UserError: it finds none.
        """
        body = model.base_model
        mergers = [
            getattr(body, merger) for merger in MERGERS if isinstance(getattr(body, merger, None), nn.Module)
        ]
        found = {
            "vision": lambda: model.get_encoder(modality="video"),
            "merger": lambda: mergers[0] if mergers else None,
            "language": model.get_decoder,
            "head": model.get_output_embeddings,
        }[name]()
        if not isinstance(found, nn.Module) or found is model or found is body:
            raise UserError(
                f"model.freeze names {name}, which transformers does not tell apart in a {self.name}: "
                f"leave it out, or write an adapter in vcr1/policy/families.py"
            )
        return [found]


QWEN2_5_VL = Family()
FAMILIES = {family.name: family for family in (QWEN2_5_VL, Qwen2VL(), Qwen3VL())}


def family_named(model_type: str) -> Family:
    """One of :data:`FAMILIES`, or an :class:`OtherFamily` of that name."""
    return FAMILIES.get(model_type) or OtherFamily(model_type)


def family_of(model: Any) -> Family:
    """The family of a Hugging Face model."""
    return family_named(model.config.model_type)
