"""How the tiny model gets its eyes: dense labels at the video tokens.

Answers alone taught the tiny model only how long events usually are. With labels at every video token
(what is visible there, which second it is, where it lies) it learns to see. The stage stands in for
pretraining; a real model brings its perception along.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vcr1.policy import VideoPolicy
from vcr1.records import Batch, VideoClip
from vcr1.video import ClipSpec, ShapeEvent

EDGES = 4
"""Numbers of a box, and video tokens per step of time where boxes are asked."""


class DenseVideoLabels:
    """Auxiliary loss of ``SFTModule``: cross-entropy at the video tokens of synthetic clips.

    Each token is asked for words and digits, equally likely:

    - one token per step of time, clips of events: half the colours and forms visible in the frames that the
      token merges (a full stop for none), half the digits of the second at which its span begins;
    - one token per step, a shape in motion: half its colour and form, half the digits of its centre;
    - four tokens per step: the first digit after the point of one edge of the shape's box each.
    """

    def __call__(self, policy: VideoPolicy, batch: Batch, hidden: Tensor) -> Tensor:
        """Return mean loss over the video tokens of the batch, a scalar.

        Args:
            policy: the model, for its head and its tokenizer.
            batch: P samples of synthetic clips.
            hidden: ``[P, L, D]`` last hidden states of the prompts, padded on the left.
        """
        rows: list[Tensor] = []
        labels: list[dict[int, float]] = []
        for row, inputs, sample, clip in zip(hidden, batch.inputs, batch.samples, batch.clips, strict=True):
            is_video = inputs["input_ids"][0] == policy.model.config.video_token_id
            rows.append(row[-len(is_video) :][is_video])
            try:
                spans = token_spans(clip, policy.encoder.grid.temporal, int(is_video.sum()))
                words = [label(sample.extra["spec"], *span) for span in spans]
            except ValueError as error:
                raise ValueError(f"{sample.id}: {error}") from error
            labels += [_ids(policy.encoder.tokenizer, weighted) for weighted in words]
        logs = policy.model.lm_head(torch.cat(rows)).float().log_softmax(-1)
        places = [place for place, ids in enumerate(labels) for _ in ids]
        columns = [id_ for ids in labels for id_ in ids]
        weights = torch.tensor([weight for ids in labels for weight in ids.values()], device=logs.device)
        return -(logs[places, columns] * weights).sum() / len(labels)


def label(spec: ClipSpec, start: float, end: float, place: int, places: int) -> dict[str, float]:
    """Return the words and digits that a video token is asked for, with their weights.

    Args:
        spec: the clip.
        start: seconds at which the token's span of time begins.
        end: seconds at which it ends.
        place: of the token within its step of time.
        places: tokens of a step.

    Raises:
        ValueError: a number of tokens or a time that has no label.
    """
    if places == EDGES:
        (event,) = spec.events
        # The model merges two frames into a token; they lie at the beginning and in the middle of its span.
        return _blend(*(_digit(event.box(time)[place]) for time in (start, (start + end) / 2)))
    if places != 1:
        raise ValueError(f"{places} video tokens per step have no labels")
    shown = (start, (start + end) / 2)  # the times of the two frames
    visible = [event for event in spec.events if any(event.start <= time < event.end for time in shown)]
    words = _blend(*(word for event in visible for word in _words(event))) or {".": 1.0}
    if len(spec.events) == 1:
        x0, y0, x1, y1 = spec.events[0].box(start)
        return _halves(words, _blend(_digit((x0 + x1) / 2), _digit((y0 + y1) / 2)))
    return _halves(words, _blend(*str(int(start))))


def _words(event: ShapeEvent) -> tuple[str, str]:
    return f" {event.color}", f" {event.shape}"


def _digit(value: float) -> str:
    """Return first digit after the point of a coordinate, rounded as answers write it."""
    return str(min(max(round(value * 10), 0), 9))


def _blend(*words: str) -> dict[str, float]:
    """Return equal weights, that of a word said twice twice as large."""
    return {word: words.count(word) / len(words) for word in words}


def _halves(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {word: (first.get(word, 0.0) + second.get(word, 0.0)) / 2 for word in (first | second)}


def _ids(tokenizer: Any, weighted: dict[str, float]) -> dict[int, float]:
    """Return weights by the first token of each word."""
    ids: dict[int, float] = {}
    for word, weight in weighted.items():
        id_ = tokenizer(word, add_special_tokens=False)["input_ids"][0]
        ids[id_] = ids.get(id_, 0.0) + weight
    return ids


def token_spans(clip: VideoClip, temporal_patch: int, tokens: int) -> list[tuple[float, float, int, int]]:
    """Return each video token's start and end in seconds, its place in its step, and the places."""
    steps = len(clip.indices) // temporal_patch
    length, places = clip.duration / steps, tokens // steps
    return [
        (step * length, (step + 1) * length, place, places)
        for step in range(steps)
        for place in range(places)
    ]
