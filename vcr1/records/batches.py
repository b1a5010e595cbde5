"""What comes back from the model, and who judges it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from vcr1.records.samples import LostSample, PromptInputs, Sample, VideoClip, to_device
from vcr1.records.values import ParseFailure

SMALL_BYTES = 2**16
"""Tensors below this travel from a data loader's worker as bytes: each that goes through shared memory costs
a file and an exchange with the worker, which may be busy decoding. A batch of a dozen prompts has 80."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer: its text and what the task's parser read in it."""

    text: str
    value: Any | ParseFailure


@dataclass(frozen=True, slots=True)
class Judgement:
    """A task's scores of one completion.

    Attributes:
        sample_id: the sample that was asked.
        completion: text and parsed value.
        rewards: part -> value in 0..1, every part of the task, in the task's order; NaN for a part whose
            judge failed.
        total: weighted sum of the parts; NaN where one is.
        metrics: metric -> value of this sample (``iou`` for grounding); NaN where its judge failed.
        category: the group in which the sample is counted by itself, if any.
        failure: reason for which the completion, or a part of it, could not be read; None where it could.
    """

    sample_id: str
    completion: Completion
    rewards: dict[str, float]
    total: float
    metrics: dict[str, float]
    category: str | None = None
    failure: str | None = None

    @property
    def unjudged(self) -> bool:
        """Return whether the judge failed, so that the total says nothing about the completion."""
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
        """Return ``[P, G]`` tokens per completion."""
        return self.completion_mask.sum(-1)

    def part(self, rows: list[int]) -> RolloutGroups:
        """Return the groups of some of the prompts."""
        return RolloutGroups(
            inputs=[self.inputs[row] for row in rows],
            completion_ids=self.completion_ids[rows],
            completion_mask=self.completion_mask[rows],
            logprobs=self.logprobs[rows],
            truncated=self.truncated[rows],
            texts=[self.texts[row] for row in rows],
        )

    def trimmed(self) -> RolloutGroups:
        """Return the groups without columns in which no completion has a token."""
        width = int(self.lengths.max())
        return replace(
            self,
            completion_ids=self.completion_ids[..., :width],
            completion_mask=self.completion_mask[..., :width],
            logprobs=self.logprobs[..., :width],
        )


class Scorer(Protocol):
    """The part of a task that a batch brings along, to score its completions.

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
        """Return the reward parts, in order."""

    def judge(self, texts: Sequence[str], samples: Sequence[Sample]) -> Future[list[Judgement]]:
        """Begin to parse and score completions, a sample for each; never raises on model text."""

    def answer(self, sample: Sample) -> str:
        """Return the completion that supervised fine-tuning shows the model."""

    def summarise(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Return the data set's metrics over all judgements."""


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

    Attributes:
        ahead: the micro-batches that follow it, if a loader looks ahead; not moved to a device with it.
    """

    ahead: tuple[Batch, ...] = ()

    def __init__(
        self,
        task: Scorer,
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with small tensors as bytes."""
        frames = [_portable(clip.frames) for clip in self.clips]
        clips = [(clip.indices, clip.timestamps, clip.duration, clip.total_frames) for clip in self.clips]
        inputs = [{name: _portable(tensor) for name, tensor in item.items()} for item in self.inputs]
        return _unpickled, (self.task, self.samples, frames, clips, inputs, self.lost)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its inputs on ``device``."""
        inputs = [to_device(inputs, device) for inputs in self.inputs]
        moved = Batch(self.task, self.samples, self.clips, inputs, self.lost)
        moved.ahead = self.ahead
        return moved

    def pin_memory(self) -> Batch:
        """Return the batch with its inputs in page-locked memory (called by the DataLoader)."""
        pinned = [{name: tensor.pin_memory() for name, tensor in inputs.items()} for inputs in self.inputs]
        return Batch(self.task, self.samples, self.clips, pinned, self.lost)


def _portable(tensor: Tensor) -> Tensor | NDArray[Any]:
    """Return a small tensor as an array, others as they are; numpy knows no bfloat16."""
    is_small = tensor.device.type == "cpu" and tensor.nbytes < SMALL_BYTES
    return tensor.numpy() if is_small and tensor.dtype != torch.bfloat16 else tensor


def _unpickled(
    task: Scorer,
    samples: list[Sample],
    frames: list[Any],
    clips: list[tuple[Any, ...]],
    inputs: list[dict[str, Any]],
    lost: list[LostSample],
) -> Batch:
    """Return the batch that was pickled."""
    return Batch(
        task,
        samples,
        [VideoClip(torch.as_tensor(own), *timing) for own, timing in zip(frames, clips, strict=True)],
        [{name: torch.as_tensor(value) for name, value in item.items()} for item in inputs],
        lost,
    )
