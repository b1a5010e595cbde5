"""Positions inside a Hugging Face model: the checkpoint's own rule put in, and the library's rule examined.

Imports no Lightning: lmms-eval uses this where there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vcr1.errors import UserError
from vcr1.policy.families import FAMILIES, RULE_FIELD, VideoClock, family_of
from vcr1.policy.prompts.layout import mrope_positions

IMAGE, VIDEO = 1, 2
"""Values of ``mm_token_type_ids``."""


def correct_positions(model: Any, rule: str | None = None) -> Any:
    """Let a loaded Hugging Face model compute the positions that its weights were trained with.

    Transformers 5.3 to 5.23 place the text behind a video by the size of its frame, whatever its length, and
    before 5.23 they round the seconds of a step to whole ones. This replaces ``get_rope_index`` of this one
    model by :func:`rope_index`; ``generate`` and the forward then follow the checkpoint's rule.

    Args:
        model: a model of one of the families of vcr1 for conditional generation, with or without adapters.
        rule: of the weights, where the config does not state it, as with adapters; None for the config's.

    Returns:
        The same model.

    Raises:
        UserError: another family, or a ``config.json`` with an unknown rule.
    """
    family = family_of(model)
    if family.name not in FAMILIES:
        raise UserError(
            f"correct_positions: vcr1 knows the rules of {', '.join(FAMILIES)}, not of {family.name}; "
            f"hand position_ids to the model instead"
        )
    if rule is not None:
        setattr(model.config, RULE_FIELD, rule)
    family.text_after_video(model.config)
    if family.frames_are_grids:  # every version places these alike
        return model
    body: Any = _body(model)
    # A partial, not a bound method: it goes with the model when that is copied or pickled.
    body.get_rope_index = partial(rope_index, body)
    return model


def rope_index(
    body: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute M-RoPE positions by the checkpoint's rule, in the form of transformers' ``get_rope_index``.

    Args:
        body: a ``Qwen2VLModel``, ``Qwen2_5_VLModel`` or ``Qwen3VLModel``: this can be a method of the class.
        input_ids: ``[B, L]``.
        mm_token_type_ids: not needed; the placeholders of images and videos are found by their ids.
        image_grid_thw: ``[images, 3]`` patches in time, height and width.
        video_grid_thw: ``[videos, 3]`` the same of videos.
        second_per_grid_ts: ``[videos]`` seconds of a step of the temporal grid; None for 1.
        attention_mask: ``[B, L]`` 0 at padding; None where there is none.

    Returns:
        ``[3, B, L]`` positions, 0 at padding, and ``[B, 1]`` what is added to the number of tokens so far to
        get the position of the next one.
    """
    config = body.config
    clock = VideoClock(torch.empty(0, 3), torch.empty(0), 1.0)
    if video_grid_thw is not None:
        seconds = torch.ones(len(video_grid_thw)) if second_per_grid_ts is None else second_per_grid_ts
        inputs = {"video_grid_thw": video_grid_thw, "second_per_grid_ts": torch.as_tensor(seconds)}
        clock = family_of(body).clock(config, inputs)
    images = [] if image_grid_thw is None else image_grid_thw.tolist()
    grids: dict[int, Iterator[tuple[list[int], float]]] = {
        IMAGE: ((grid, 0.0) for grid in images),
        VIDEO: zip(clock.grids.tolist(), clock.seconds_per_grid.tolist(), strict=True),
    }
    positions = input_ids.new_zeros(3, *input_ids.shape)
    deltas = input_ids.new_zeros(len(input_ids), 1)
    for row, ids in enumerate(input_ids):
        kept = torch.ones_like(ids).bool() if attention_mask is None else attention_mask[row].bool()
        types = IMAGE * (ids[kept] == config.image_token_id) + VIDEO * (ids[kept] == config.video_token_id)
        own = [next(grids[kind]) for kind, _ in itertools.groupby(types.tolist()) if kind]
        found = mrope_positions(
            types.clamp(max=1) * VIDEO,
            VideoClock(
                torch.tensor([grid for grid, _ in own]),
                torch.tensor([seconds for _, seconds in own]),
                clock.tokens_per_second,
                clock.text_after_video,
            ),
            merge=config.vision_config.spatial_merge_size,
        )
        positions[:, row, kept] = found
        deltas[row] = found[:, -1].max() + 1 - found.shape[1]
    return positions, deltas


@torch.no_grad()
def text_overlaps_video(model: Any) -> bool:
    """Return whether a model places text inside the video's times, as transformers 5.3 to 5.23 do.

    Asks the model's own ``get_rope_index`` about a video of 50 steps of one token between two words.

    Returns:
        False too where the model has no such function, or one that cannot be asked so: families whose frames
        are grids of their own do not take 50 steps as one run of tokens.
    """
    body: Any = _body(model)
    vision: Any = getattr(model.config, "vision_config", None)
    if body is None or not hasattr(vision, "spatial_merge_size"):
        return False
    side, steps = vision.spatial_merge_size, 50
    types = torch.tensor([[0] + [VIDEO] * steps + [0]])
    grid = torch.tensor([[steps * getattr(vision, "temporal_merge_size", 1), side, side]])
    try:
        positions, _ = body.get_rope_index(
            types * getattr(model.config, "video_token_id", 1) // VIDEO,
            mm_token_type_ids=types,
            video_grid_thw=grid,
        )
    except Exception:  # code of any model, asked what it may not have been written for
        return False
    return bool(positions[..., -1].max() <= positions[..., 1:-1].max())


def _body(model: nn.Module) -> Any | None:
    """Return the part of a model that computes its positions, if it has one."""
    return next((module for module in model.modules() if hasattr(module, "get_rope_index")), None)
