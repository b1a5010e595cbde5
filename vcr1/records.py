"""The records that pass between the stages.

Shape letters, used in every docstring of the package:

====  ==========================================================
P     prompts in a micro-batch
G     completions of one prompt (the group)
L     prompt tokens, vision placeholders included
C     completion tokens
T     frames of a clip
H, W  height and width of a frame in pixels
R     reward parts of a task
V     vocabulary
====  ==========================================================

Times are seconds from the start of the video; boxes are normalised corners in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time in seconds, ``start <= end``, both finite.

    Raises:
        ValueError: an end that is not finite, or that lies before the start.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"interval with an end that is not finite: {self.start} to {self.end}")
        if self.end < self.start:
            raise ValueError(f"interval that ends before it starts: {self.start} to {self.end}")

    @property
    def length(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box by its corners, as fractions of the frame: ``x`` to the right, ``y`` downwards.

    ``(0, 0)`` is the frame's upper left corner and ``(1, 1)`` its lower right one. A box may reach out of
    the frame, as annotated objects do, and may have no area; `vcr1.geometry.clip_box` cuts it to the frame.

    Raises:
        ValueError: a corner that is not finite, or a second corner left of or above the first.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        corners = (self.x0, self.y0, self.x1, self.y1)
        if not all(map(math.isfinite, corners)):
            raise ValueError(f"box with a corner that is not finite: {corners}")
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise ValueError(f"box whose second corner lies before its first: {corners}")

    @property
    def area(self) -> float:
        """Area as a fraction of the frame."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


Tracklet = tuple[Box, ...]
"""One object's boxes, one per asked frame in order of time."""


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Where a sample's frames come from: a file, a part of one, or a folder of frames.

    A sample's times count from the start of its part.

    Attributes:
        path: a video file, or a folder of pictures in the order of their names.
        start: seconds into the file at which the part begins; 0 for the beginning.
        end: seconds into the file at which it ends; None for the end.
        fps: frames per second of a folder of frames; None for a file.

    Raises:
        ValueError: an end that does not lie after the start, or a frame rate that is not positive.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"a part of a video starts at 0 s or later, not at {self.start}")
        if self.end is not None and not self.start < self.end < math.inf:
            raise ValueError(f"a part of a video from {self.start} s that ends at {self.end} s")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"frames per second must be a positive number: {self.fps}")


@dataclass(frozen=True, slots=True)
class GroundedAnswer:
    """An option and the time that shows it; in an answer either part may have failed on its own.

    Attributes:
        letter: the option.
        intervals: the spans of time in seconds.
    """

    letter: str | ParseFailure
    intervals: tuple[Interval, ...] | ParseFailure


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one video, with its truth.

    Attributes:
        id: stable over runs and machines, unique in its data set.
        video: path of the video file, or where else the frames come from.
        query: what is asked, in the data set's own words.
        target: the truth, of the type that the sample's task parses answers into.
        duration: length of the video in seconds where the annotation states it.
        options: what there is to choose from, without letters: options of a question, names of classes.
        extra: whatever else the annotation holds; custom rewards may read it. ``category``: the group in
            which a task counts the sample by itself.
    """

    id: str
    video: str | VideoSource
    query: str
    target: Any
    duration: float | None = None
    options: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> VideoSource:
        """Where the frames come from."""
        return self.video if isinstance(self.video, VideoSource) else VideoSource(self.video)


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Sampled frames together with where they lie in time. The only carrier of frame timing.

    Attributes:
        frames: ``[T, 3, H, W]`` uint8, RGB.
        indices: ``T`` frame numbers in the source.
        timestamps: ``T`` presentation times in seconds, from the beginning of the video or of its part.
        duration: seconds of source that the frames stand for: their number times their spacing.
        total_frames: frames of the source within that duration; a fraction where its borders cut frames.
    """

    frames: Tensor
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    duration: float
    total_frames: float

    @property
    def source_fps(self) -> float:
        """Mean frames per second of the source."""
        return self.total_frames / self.duration

    @property
    def fps(self) -> float:
        """Mean frames per second of the sampled frames."""
        return len(self.indices) / self.duration

    def seconds_per_grid(self, temporal_patch: int) -> float:
        """Seconds between two steps of the model's temporal grid (``second_per_grid_ts``)."""
        return temporal_patch / self.fps

    def without_frames(self) -> VideoClip:
        """The timing alone, to travel with inputs that already hold the pixels."""
        return replace(self, frames=self.frames.new_empty(0))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked; the video, where there is one, stands before the text."""

    text: str
    system: str | None = None


PromptInputs = dict[str, Tensor]
"""The processor's whole output for one prompt (batch of one); always passed on whole."""


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A completion that holds no answer of the wanted kind; ``reason`` comes from a fixed set."""

    reason: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer: its text and what the task's parser read in it."""

    text: str
    value: Any | ParseFailure


@dataclass(frozen=True, slots=True)
class EventScores:
    """How the events of two captions agree, each in 0..1.

    Attributes:
        recall: share of the reference's events that the prediction tells.
        precision: share of the prediction's events that the reference tells; NaN where it was not asked for.
    """

    recall: float
    precision: float


@dataclass(frozen=True, slots=True)
class JudgeFailure:
    """A judge that gave no verdict, and why: the completion is left out, not scored 0."""

    reason: str


@dataclass(frozen=True, slots=True)
class JudgedCaption:
    """A caption with its judge's verdict."""

    text: str
    verdict: EventScores | JudgeFailure


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a task says of one completion.

    Attributes:
        sample_id: the sample that was asked.
        completion: text and parsed value.
        rewards: part -> value in 0..1, every part of the task, in the task's order; NaN for a part whose
            judge failed.
        total: weighted sum of the parts; NaN where one is.
        metrics: metric -> value of this sample (``iou`` for grounding); NaN where its judge failed.
        category: the group in which the sample is counted by itself, if any.
    """

    sample_id: str
    completion: Completion
    rewards: dict[str, float]
    total: float
    metrics: dict[str, float]
    category: str | None = None

    @property
    def failure(self) -> str | None:
        """Reason of the parse failure, or None; of the first part that failed where there are two."""
        value = self.completion.value
        parts = (value.letter, value.intervals) if isinstance(value, GroundedAnswer) else (value,)
        return next((part.reason for part in parts if isinstance(part, ParseFailure)), None)

    @property
    def unjudged(self) -> bool:
        """Whether the judge failed, so that the total says nothing about the completion."""
        return math.isnan(self.total)


@dataclass(slots=True)
class RolloutGroups:
    """P prompts with G sampled completions each; completions are padded on the right.

    Attributes:
        inputs: P prompt inputs, whole.
        completion_ids: ``[P, G, C]`` int64; the padding follows the end-of-turn token.
        completion_mask: ``[P, G, C]`` bool, True where a sampled token stands (end-of-turn included).
        logprobs: ``[P, G, C]`` float32, of the sampled tokens at sampling time; 0 at padding.
        truncated: ``[P, G]`` bool, True where the length limit ended the completion.
        texts: ``P x G`` decoded completions without special tokens.
    """

    inputs: list[PromptInputs]
    completion_ids: Tensor
    completion_mask: Tensor
    logprobs: Tensor
    truncated: Tensor
    texts: list[list[str]]

    @property
    def lengths(self) -> Tensor:
        """``[P, G]`` tokens per completion."""
        return self.completion_mask.sum(-1)


@dataclass(frozen=True, slots=True)
class LostSample:
    """A sample that could not be loaded, and why: it is counted, also in its category, never replaced."""

    sample_id: str
    reason: str
    category: str | None = None


def to_device(inputs: PromptInputs, device: torch.device) -> PromptInputs:
    """The same inputs on another device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}


PendingJudgements = Callable[[], list[Judgement]]
"""Judgements that are under way: the call waits for them."""


class Judge(Protocol):
    """What a batch brings along to judge its completions: the face of a task that a module sees.

    Attributes:
        name: the task's name, used in metric keys.
        metric_names: the per-sample metrics that ``judge`` reports.
        failure_reasons: every reason that a parse failure can have.
    """

    name: str
    metric_names: tuple[str, ...]
    failure_reasons: tuple[str, ...]

    @property
    def reward_names(self) -> tuple[str, ...]:
        """The reward parts, in order."""

    def judge(self, texts: Sequence[str], samples: Sequence[Sample]) -> PendingJudgements:
        """Begin to parse and score completions, a sample for each; never raises on model text."""

    def answer(self, sample: Sample) -> str:
        """The completion that supervised fine-tuning shows the model."""

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The data set's metrics over all judgements."""


class Batch:
    """A micro-batch of one task, with its own judge. Lost samples are listed, not replaced.

    No dataclass: Lightning looks into those for tensors to cast, and in half precision would round the
    times of the inputs.

    Args:
        task: the judge of the samples.
        samples: P samples.
        clips: their timing; ``frames`` is empty, the pixels are in ``inputs``.
        inputs: P prompt inputs, whole.
        lost: samples that could not be loaded.
    """

    def __init__(
        self,
        task: Judge,
        samples: list[Sample],
        clips: list[VideoClip],
        inputs: list[PromptInputs],
        lost: list[LostSample],
    ) -> None:
        self.task = task
        self.samples = samples
        self.clips = clips
        self.inputs = inputs
        self.lost = lost

    def to(self, device: torch.device) -> Batch:
        """The batch with its inputs on ``device``."""
        inputs = [to_device(inputs, device) for inputs in self.inputs]
        return Batch(self.task, self.samples, self.clips, inputs, self.lost)

    def pin_memory(self) -> Batch:
        """The batch with its inputs in page-locked memory (called by the DataLoader)."""
        pinned = [{name: tensor.pin_memory() for name, tensor in inputs.items()} for inputs in self.inputs]
        return Batch(self.task, self.samples, self.clips, pinned, self.lost)
