"""Which questions are answered together: those of one video first, and those of like length."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from vcr1.errors import VideoError
from vcr1.evaluation.answers import (
    MISSING_VIDEO,
    NOT_GENERATED,
    PROMPT_TOO_LONG,
    UNREADABLE_VIDEO,
    Answer,
    Key,
)
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.policy import PromptEncoder
from vcr1.records import Batch, LostSample, Sample, VideoClip, VideoSource
from vcr1.video import read_clip

log = logging.getLogger(__name__)

LONGEST = 16384
"""Characters of a prompt."""


@dataclass(frozen=True, slots=True)
class Group:
    """Questions that are answered together.

    A model's completion depends in its last bits on what else is in its batch. So groups are formed from all
    samples of a benchmark alone, whatever ranks there are and whatever is answered already.

    Attributes:
        benchmark: place of the benchmark in the run.
        places: of the samples in it.
    """

    benchmark: int
    places: tuple[int, ...]


def form_groups(benchmarks: Sequence[Benchmark], size: int) -> list[Group]:
    """Groups of at most ``size`` questions; longest videos first, so that what does not fit fails early."""
    groups = []
    for number, one in enumerate(benchmarks):
        videos: dict[VideoSource, list[int]] = {}
        for place, sample in enumerate(one.samples):
            videos.setdefault(sample.source, []).append(place)
        lengths = {video: _length(one, places) for video, places in videos.items()}
        ordered = sorted(videos, key=lambda video: lengths[video], reverse=True)
        queue = [place for video in ordered for place in videos[video]]
        groups += [Group(number, tuple(queue[start : start + size])) for start in range(0, len(queue), size)]
    return groups


def _length(benchmark: Benchmark, places: Iterable[int]) -> tuple[float, int]:
    """What decides a prompt's length as far as it is known before decoding: frames, then text."""
    samples = [benchmark.samples[place] for place in places]
    source, duration = samples[0].source, samples[0].duration
    if source.end is not None:
        duration = source.end - source.start
    most = benchmark.budget.max_frames
    frames = benchmark.task.frames or min(most, math.ceil((duration or 0.0) * benchmark.budget.fps))
    return frames, max(len(benchmark.task.prompt(sample).text) for sample in samples)


def pending(
    groups: Sequence[Group], benchmarks: Sequence[Benchmark], draws: int, done: Mapping[Key, Answer]
) -> list[Group]:
    """The groups of which an answer is missing; what could not be generated is tried again."""

    def answered(name: str, id_: str) -> bool:
        first, last = done.get((name, id_, 0)), done.get((name, id_, draws - 1))
        if first is not None and first.failure in (MISSING_VIDEO, UNREADABLE_VIDEO, PROMPT_TOO_LONG):
            return True  # one answer, whatever is drawn
        return last is not None and last.failure != NOT_GENERATED

    def complete(group: Group) -> bool:
        one = benchmarks[group.benchmark]
        return all(answered(one.name, one.samples[place].id) for place in group.places)

    return [group for group in groups if not complete(group)]


class GroupDataset(Dataset[tuple[Group, Batch]]):
    """Groups with their videos decoded; runs in the DataLoader's workers, ahead of the model.

    A video that several questions of a group ask about is decoded, and its pixels are prepared, once.

    Args:
        groups: what is asked.
        benchmarks: of which.
        encode: from prompt and clip to model inputs.
        decoder: ``auto``, ``decord`` or ``pyav``.
        longest: most characters of a prompt; one that is longer is a failure.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        benchmarks: Sequence[Benchmark],
        encode: PromptEncoder,
        decoder: str,
        longest: int = LONGEST,
    ) -> None:
        self.groups = list(groups)
        self.benchmarks = list(benchmarks)
        self.encode = encode
        self.decoder = decoder
        self.longest = longest

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, place: int) -> tuple[Group, Batch]:
        group = self.groups[place]
        one = self.benchmarks[group.benchmark]
        batch = Batch(one.task, [], [], [], [])
        samples = []
        for sample in (one.samples[number] for number in group.places):
            if len(one.task.prompt(sample).text) <= self.longest:
                samples.append(sample)
            else:
                batch.lost.append(LostSample(sample.id, PROMPT_TOO_LONG, one.task.category(sample)))
        # Those of one video stand together.
        for _, about in itertools.groupby(samples, key=lambda sample: sample.source):
            asked = list(about)
            clip = self._clip(one, asked[0])
            if isinstance(clip, LostSample):
                batch.lost += [
                    LostSample(sample.id, clip.reason, one.task.category(sample)) for sample in asked
                ]
                continue
            batch.samples += asked
            batch.clips += [clip.without_frames()] * len(asked)
            batch.inputs += self.encode.about([one.task.prompt(sample) for sample in asked], clip)
        return group, batch

    def _clip(self, benchmark: Benchmark, sample: Sample) -> VideoClip | LostSample:
        source, frames = sample.source, benchmark.task.frames
        try:
            return read_clip(source, benchmark.budget, self.encode.grid, decoder=self.decoder, frames=frames)
        except VideoError as error:
            log.warning("%s, sample %s: %s", benchmark.name, sample.id, error)
            reason = UNREADABLE_VIDEO if Path(source.path).exists() else MISSING_VIDEO
            return LostSample(sample.id, reason)
