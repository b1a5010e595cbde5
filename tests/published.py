"""The positions that Qwen's weights were trained with, written down from the papers for these tests alone.

Independent of vcr1 on purpose: one token after the other, plain integers, no code shared. Sources:

- arXiv 2409.12191, section 2.1: text has one position on all three axes; a video's tokens have their step,
  row and column; each modality begins at the largest position so far plus 1.
- arXiv 2502.13923, section 2.1.2: Qwen2.5-VL's step in time is its seconds times ``tokens_per_second``. The
  authors' port (QwenLM/Qwen2.5-VL, ``qwen-vl-finetune/qwenvl/data/rope2d.py``) rounds it down.
- Qwen3-VL: each frame is a grid of its own, with its time as text before it.
- GLM-4.1V (arXiv 2507.01006): the same with the time behind it; frames are written with the tokens of images.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from vcr1.records import PromptInputs

Video = tuple[tuple[int, int, int], float]
"""Patches in time, height and width, and the seconds of a step."""


def published_positions(model: Any, inputs: PromptInputs) -> Tensor:
    """Positions ``[3, B, L]`` of the processor's dict, completions included; 0 at padding on the left."""
    config = model.config
    merge = config.vision_config.spatial_merge_size
    grids = [tuple(map(int, grid)) for grid in inputs.get("video_grid_thw", torch.empty(0, 3)).tolist()]
    seconds, per_second = [1.0] * len(grids), 1
    if config.model_type == "qwen2_5_vl":
        seconds = inputs.get("second_per_grid_ts", torch.empty(0)).tolist()
        per_second = config.vision_config.tokens_per_second
    if config.model_type in ("qwen3_vl", "glm4v"):
        grids = [(1, height, width) for steps, height, width in grids for _ in range(steps)]
        seconds = [0.0] * len(grids)
    videos = iter(zip(grids, seconds, strict=True))
    token = config.image_token_id if config.model_type == "glm4v" else config.video_token_id
    rows = [
        row_positions(ids[mask.bool()].tolist(), videos, token, merge, per_second)
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    length = inputs["input_ids"].shape[1]
    padded = [[(0, 0, 0)] * (length - len(row)) + row for row in rows]
    return torch.tensor(padded).permute(2, 0, 1).contiguous()


def row_positions(
    ids: list[int], videos: Iterator[Video], video_token: int, merge: int, per_second: int
) -> list[tuple[int, int, int]]:
    """Time, height and width of each token of one prompt."""
    found: list[tuple[int, int, int]] = []
    largest = before = -1
    for id_ in ids:
        if id_ != video_token:
            largest += 1
            found.append((largest, largest, largest))
        else:
            if before != video_token:  # a video, or a frame of Qwen3-VL, begins
                (_, height, width), seconds = next(videos)
                place, start, columns = 0, largest + 1, width // merge
            step, rest = divmod(place, height // merge * columns)
            time = int(step * per_second * Fraction(seconds))
            found.append((start + time, start + rest // columns, start + rest % columns))
            largest = max(largest, *found[-1])
            place += 1
        before = id_
    return found


def placed(model: Any, inputs: PromptInputs) -> PromptInputs:
    """The inputs of a plain Hugging Face forward, with the published positions instead of the library's.

    Families that these tests know no published rule of keep the library's own.
    """
    if model.config.model_type not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"):
        return inputs
    return {**inputs, "position_ids": published_positions(model, inputs).to(inputs["input_ids"].device)}
