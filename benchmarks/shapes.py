"""Models of Qwen2.5-VL's shapes with random weights, and prompts about noise: nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vcr1.policy import correct_positions
from vcr1.policy.families import FAMILIES
from vcr1.records import PromptInputs

PADDING, END, VIDEO_START, VIDEO_END, IMAGE, VIDEO = range(6)
"""The tokens that mean something; all others are words."""


@dataclass(frozen=True, slots=True)
class VisionShape:
    """A vision tower; the defaults are those of Qwen2.5-VL, 3B and 7B.

    Attributes:
        depth: blocks.
        hidden: width.
        heads: attention heads.
        intermediate: width of the gated MLPs.
        window: pixels on a side of an attention window.
        full: blocks that attend to their whole frame instead.
        patch: pixels on a side of a patch.
        merge: patches on a side that make one token.
        frames: frames in a patch.
    """

    depth: int = 32
    hidden: int = 1280
    heads: int = 16
    intermediate: int = 3420
    window: int = 112
    full: tuple[int, ...] = (7, 15, 23, 31)
    patch: int = 14
    merge: int = 2
    frames: int = 2

    @property
    def pixels(self) -> int:
        """Values in a patch: three colours."""
        return 3 * self.frames * self.patch**2


@dataclass(frozen=True, slots=True)
class Shape:
    """A video language model.

    Attributes:
        name: what a table calls it.
        hidden: width of the language model.
        layers: its layers.
        heads: attention heads.
        kv_heads: heads of keys and values.
        intermediate: width of the gated MLPs.
        vocabulary: rows of the embedding table and of the head.
        tied: whether those are the same weights.
        vision: its vision tower.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    vision: VisionShape = field(default_factory=VisionShape)

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads


SHAPES = {
    "3b": Shape("Qwen2.5-VL-3B", 2048, 36, 16, 2, 11008, 151_936, tied=True),
    "7b": Shape("Qwen2.5-VL-7B", 3584, 28, 28, 4, 18944, 152_064, tied=False),
    "toy": Shape(
        "toy",
        128,
        3,
        4,
        2,
        256,
        512,
        False,
        VisionShape(depth=4, hidden=64, heads=4, intermediate=96, full=(3,)),
    ),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One micro-batch: a prompt about a video and the group of its completions.

    Attributes:
        grid: patches of the video in time, height and width.
        words: tokens of text around it.
        group: completions (G).
        length: tokens of each (C).
    """

    grid: tuple[int, int, int]
    words: int
    group: int
    length: int

    def prompt(self, vision: VisionShape) -> int:
        """Tokens of the prompt (P), the two around the video included."""
        steps, height, width = self.grid
        return steps * height * width // vision.merge**2 + self.words + 2


PAPER = Setting(grid=(32, 16, 28), words=148, group=8, length=200)
"""The paper's budget of 3,584 tokens, filled by 64 frames (32 s at 2 a second) of 224x392 pixels."""
TOY = Setting(grid=(4, 8, 12), words=20, group=4, length=12)


def build_model(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """A model with random weights, made on the device in the floating type: no copy passes through memory."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            model_config(shape), dtype=dtype, attn_implementation="sdpa"
        )
    return correct_positions(model)  # all forms compute from the same positions


def model_config(shape: Shape) -> Qwen2_5_VLConfig:
    """The configuration of a shape."""
    vision, eighths = shape.vision, shape.head_size // 16
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2 * eighths, 3 * eighths, 3 * eighths],
            },
            "bos_token_id": None,
            "eos_token_id": END,
            "pad_token_id": PADDING,
        },
        vision_config={
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "num_heads": vision.heads,
            "intermediate_size": vision.intermediate,
            "out_hidden_size": shape.hidden,
            "patch_size": vision.patch,
            "spatial_merge_size": vision.merge,
            "temporal_patch_size": vision.frames,
            "window_size": vision.window,
            "fullatt_block_indexes": list(vision.full),
            "tokens_per_second": 2,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VIDEO_START,
        vision_end_token_id=VIDEO_END,
        tie_word_embeddings=shape.tied,
    )


def noise_prompt(shape: Shape, setting: Setting, device: torch.device, dtype: torch.dtype) -> PromptInputs:
    """A prompt about a video of noise, as the processor would have made it: 1 s for a step of the grid."""
    rng = torch.Generator().manual_seed(0)
    patches = torch.tensor(setting.grid).prod().item()
    words = torch.randint(VIDEO + 1, shape.vocabulary, (setting.words,), generator=rng)
    before, after = words.tensor_split(2)
    video = torch.full((int(patches) // shape.vision.merge**2,), VIDEO)
    ids = torch.cat([before, torch.tensor([VIDEO_START]), video, torch.tensor([VIDEO_END]), after])[None]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).long() * 2,
        "pixel_values_videos": torch.randn(int(patches), shape.vision.pixels, generator=rng).to(dtype),
        "video_grid_thw": torch.tensor([setting.grid]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}


class NoiseEncoder:
    """What a policy asks of its encoder, for models without a processor.

    The end of a turn is never sampled, so that every completion has the full length.
    """

    family = FAMILIES["qwen2_5_vl"]
    end_of_turn, stops = END, (END,)
    padding = PADDING

    def ends(self, ids: Tensor) -> Tensor:
        """Return where ids are the end of a turn."""
        return ids == END

    def never_sampled(self, vocabulary: int) -> list[int]:
        """The tokens that are no words."""
        return list(range(VIDEO + 1))

    def decode(self, ids: list[int]) -> str:
        """No text: there are no words behind the ids."""
        return ""
