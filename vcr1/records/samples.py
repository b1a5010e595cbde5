"""Questions about videos, on their way to the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


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
        """Return where the frames come from."""
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
        """Return mean frames per second of the source."""
        return self.total_frames / self.duration

    @property
    def fps(self) -> float:
        """Return mean frames per second of the sampled frames."""
        return len(self.indices) / self.duration

    def seconds_per_grid(self, temporal_patch: int) -> float:
        """Return seconds between two steps of the model's temporal grid (``second_per_grid_ts``)."""
        return temporal_patch / self.fps

    def without_frames(self) -> VideoClip:
        """The timing and the size alone, ``[0, 3, H, W]``, to travel with inputs that hold the pixels."""
        return replace(self, frames=self.frames.new_empty(0, *self.frames.shape[1:]))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: the texts that the model gets; a video stands before the user's text."""

    text: str
    system: str | None = None


PromptInputs = dict[str, Tensor]
"""The processor's whole output for one prompt (batch of one); always passed on whole."""


@dataclass(frozen=True, slots=True)
class LostSample:
    """A sample that could not be loaded, and why: it is counted, also in its category, never replaced."""

    sample_id: str
    reason: str
    category: str | None = None


def to_device(inputs: PromptInputs, device: torch.device) -> PromptInputs:
    """Return the same inputs on another device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
