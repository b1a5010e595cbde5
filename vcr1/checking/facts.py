"""What a check finds, as numbers: samples, videos, lengths in seconds and in tokens."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from vcr1.checking.trying import Tried
from vcr1.policy import PromptEncoder
from vcr1.readers import Annotations
from vcr1.records import Prompt, VideoClip
from vcr1.tasks import Task
from vcr1.video.probing import BAD

Spread = dict[str, float]
"""``min``, ``median``, ``mean``, ``p95`` and ``max`` of some numbers."""


def facts_of(
    annotations: Annotations, tried: Sequence[Tried], task: Task, encoder: PromptEncoder | None
) -> dict[str, Any]:
    """Return what there is to say of a split.

    Args:
        annotations: its account.
        tried: the samples that were looked at.
        task: what they are asked.
        encoder: of the model; None leaves the text uncounted.
    """
    outcomes = {one.trial: one.outcome for one in tried}.values()
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "source": annotations.source,
        "samples": len(annotations.samples),
        "mended": dict(sorted(annotations.mended.items())),
        "dropped": dict(sorted(annotations.dropped.items())),
        "checked_samples": len(tried),
        "lost_samples": sum(one.lost for one in tried),
        "misfits": sum(one.misfit is not None for one in tried),
        "warnings": dict(sorted(Counter(kind for one in tried for kind in one.oddities).items())),
        "videos": {status: counts[status] for status in ("ok", *BAD)},
        "video_seconds": spread(outcome.duration for outcome in outcomes if outcome.status == "ok"),
        "target_seconds": spread(span.length for one in tried for span in task.spans(one.sample.target)),
        "tokens": _tokens(task, [one for one in tried if one.outcome.status == "ok"], encoder),
    }


def _tokens(task: Task, usable: Sequence[Tried], encoder: PromptEncoder | None) -> dict[str, Spread | None]:
    """Lengths of the prompts whose video is usable: its tokens, those of the text and the chat, and both."""
    vision = [_vision_tokens(one) for one in usable]
    if encoder is None:
        return {"vision": spread(vision), "text": None, "prompt": None}
    around = _tokens_around(encoder)
    text = [encoder(task.prompt(one.sample), None)["input_ids"].shape[1] + around for one in usable]
    both = [sum(pair) for pair in zip(vision, text, strict=True)]
    return {"vision": spread(vision), "text": spread(text), "prompt": spread(both)}


def _vision_tokens(one: Tried) -> int:
    """Return tokens of a clip."""
    assert one.trial.grid is not None
    return one.trial.grid.tokens(one.outcome.frames, one.outcome.height, one.outcome.width)


def _tokens_around(encoder: PromptEncoder) -> int:
    """Return tokens that a video adds to a prompt beside its own, such as those that open and close it."""
    grid = encoder.grid
    blank = torch.zeros(grid.temporal, 3, grid.spatial, grid.spatial, dtype=torch.uint8)
    clip = VideoClip(blank, tuple(range(grid.temporal)), (0.0,) * grid.temporal, 1.0, grid.temporal)
    lengths = [encoder(Prompt("When?"), shown)["input_ids"].shape[1] for shown in (clip, None)]
    return int(lengths[0] - lengths[1]) - 1


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread of numbers; None without any. ``p95``: the least that 95 % do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
        "max": ordered[-1],
    }
