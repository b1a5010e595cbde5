"""Samples with their videos decoded, and batches of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch.utils.data import Dataset

from vcr1.data.fitting import misfit
from vcr1.data.order import Key
from vcr1.errors import VideoError
from vcr1.records import Batch, LostSample, Prompt, PromptInputs, Sample, VideoClip, VideoSource
from vcr1.tasks.base import Task
from vcr1.video import FrameBudget, GuardedReader, PatchGrid

Encode = Callable[[Prompt, VideoClip | None], PromptInputs]
Loaded = tuple[Sample, VideoClip, PromptInputs]


class VideoDataset(Dataset[Loaded | LostSample]):
    """Decodes and encodes one sample at a time; runs in the DataLoader's workers.

    A video that cannot be read, or that its annotation does not fit, gives a ``LostSample``: it is counted,
    not replaced by another.

    Args:
        samples: what to ask.
        task: makes the prompts.
        encode: from prompt and clip to model inputs.
        budget: frames and pixels that a clip may cost.
        grid: frames and pixels per vision token of the model.
        reader: decodes the videos; None for one with the usual limits.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        task: Task,
        encode: Encode,
        budget: FrameBudget,
        grid: PatchGrid,
        reader: GuardedReader | None = None,
    ) -> None:
        self.samples = list(samples)
        self.task = task
        self.encode = encode
        self.budget = budget
        self.grid = grid
        self.reader = reader or GuardedReader()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Loaded | LostSample:
        sample = self.samples[index]
        try:
            clip = self.reader.clip(sample.source, self.budget, self.grid, frames=self.task.frames)
        except VideoError as error:
            return LostSample(sample.id, str(error), self.task.category(sample))
        # A clip of a given number of frames has a clock of its own, and its task asks for no times.
        why = misfit(self.task, sample, clip.duration) if self.task.frames is None else None
        if why is not None:
            return LostSample(sample.id, why, self.task.category(sample))
        return sample, clip.without_frames(), self.encode(self.task.prompt(sample), clip)

    def collate(self, items: list[Loaded | LostSample]) -> Batch:
        """Put items into a batch of this data set's task."""
        loaded = [item for item in items if not isinstance(item, LostSample)]
        return Batch(
            task=self.task,
            samples=[sample for sample, _, _ in loaded],
            clips=[clip for _, clip, _ in loaded],
            inputs=[inputs for _, _, inputs in loaded],
            lost=[item for item in items if isinstance(item, LostSample)],
        )


class MixedDataset(Dataset[Batch]):
    """The data sets of several tasks; an item is a whole micro-batch of one of them.

    Args:
        parts: task's name -> its data set.
    """

    def __init__(self, parts: Mapping[str, VideoDataset]) -> None:
        self.parts = dict(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __getitem__(self, keys: Sequence[Key]) -> Batch:
        """Return the micro-batch of the samples with these keys, all of one task."""
        (name,) = {name for name, _ in keys}
        part = self.parts[name]
        return part.collate([part[index] for _, index in keys])


def with_wrong_videos(samples: Sequence[Sample], seed: int = 0) -> list[Sample]:
    """Return the same questions about another video of the same length: what a model scores without seeing.

    Samples of unknown duration, or of one that no other video has, are left out.
    """
    rng = random.Random(seed)
    videos: dict[float, set[VideoSource]] = {}
    for sample in samples:
        if sample.duration is not None:
            videos.setdefault(sample.duration, set()).add(sample.source)
    ordered = {duration: sorted(sources, key=str) for duration, sources in videos.items()}
    result = []
    for sample in samples:
        others = [] if sample.duration is None else ordered[sample.duration]
        if len(others) > 1:
            # The place of another one, counted from the sample's own.
            place = others.index(sample.source) + rng.randrange(1, len(others))
            result.append(replace(sample, video=others[place % len(others)]))
    return result
