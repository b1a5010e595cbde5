"""Which questions are answered together: those of one video first, and those of like length."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from vcr1.data import LoaderSettings
from vcr1.evaluation.answers import NOT_GENERATED, PROMPT_TOO_LONG, AnswerRecord, Key
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.conversations import Conversation
from vcr1.inference.limits import (
    MISSING_VIDEO,
    ONE_FRAME,
    UNREADABLE_VIDEO,
    VIDEO_TOO_LONG,
    Limits,
    NotShown,
    show_clip,
)
from vcr1.policy import PromptEncoder, VideoPolicy
from vcr1.records import Batch, LostSample, Sample, VideoClip, VideoSource
from vcr1.video import GuardedReader

log = logging.getLogger(__name__)

Item = TypeVar("Item")
LOST = (MISSING_VIDEO, UNREADABLE_VIDEO, VIDEO_TOO_LONG, ONE_FRAME, PROMPT_TOO_LONG)
"""Reasons for which a question is not asked, however often."""


LIMITS = Limits(query=16384, group="evaluation")
"""A question beyond them is a failure; ``query`` counts the characters of the whole prompt."""


class Group(NamedTuple):
    """Questions that are answered together.

    A tuple: in half precision Lightning takes dataclasses apart, and fails at those that do not change.

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
    """Return what decides a prompt's length as far as it is known before decoding: frames, then text."""
    samples = [benchmark.samples[place] for place in places]
    source, duration = samples[0].source, samples[0].duration
    if source.end is not None:
        duration = source.end - source.start
    most = benchmark.budget.max_frames
    frames = benchmark.task.frames or min(most, math.ceil((duration or 0.0) * benchmark.budget.fps))
    return frames, max(len(benchmark.task.prompt(sample).text) for sample in samples)


def pending(
    groups: Sequence[Group], benchmarks: Sequence[Benchmark], draws: int, done: Mapping[Key, AnswerRecord]
) -> list[Group]:
    """Return the groups of which an answer is missing; what could not be generated is tried again."""

    def answered(name: str, id_: str) -> bool:
        first, last = done.get((name, id_, 0)), done.get((name, id_, draws - 1))
        if first is not None and first.failure in LOST:
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
        reader: decodes the videos; None for one with the usual limits.
        limits: what is not asked.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        benchmarks: Sequence[Benchmark],
        encode: PromptEncoder,
        reader: GuardedReader | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.groups = list(groups)
        self.benchmarks = list(benchmarks)
        self.encode = encode
        self.reader = reader or GuardedReader()
        self.limits = limits

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, place: int) -> tuple[Group, Batch]:
        group = self.groups[place]
        one = self.benchmarks[group.benchmark]
        batch = Batch(one.task, [], [], [], [])
        samples = []
        for sample in (one.samples[number] for number in group.places):
            if len(one.task.prompt(sample).text) <= self.limits.query:
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
        frames, grid = benchmark.task.frames, self.encode.grid
        try:
            return show_clip(self.reader, sample.source, benchmark.budget, grid, self.limits, frames)
        except NotShown as error:
            log.warning("%s, sample %s: %s", benchmark.name, sample.id, error)
            return LostSample(sample.id, error.reason)


class Groups(L.LightningDataModule):
    """The groups of all benchmarks that wait for an answer, dealt to the ranks.

    Args:
        groups: the same on all ranks.
        benchmarks: what they are of.
        policy: whose encoder makes the inputs.
        settings: workers, prefetching and decoder.
        conversations: what is read behind them.
        limits: what is not asked.
        reader: decodes the videos; None for one as the settings say.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        benchmarks: Sequence[Benchmark],
        policy: VideoPolicy,
        settings: LoaderSettings,
        conversations: Sequence[Conversation] = (),
        limits: Limits = LIMITS,
        reader: GuardedReader | None = None,
    ) -> None:
        super().__init__()
        self.groups = list(groups)
        self.conversations = list(conversations)
        self.benchmarks = list(benchmarks)
        self.policy = policy
        self.settings = settings
        self.limits = limits
        self.reader = reader or settings.reader()

    def test_dataloader(self) -> DataLoader[Any]:
        """One rank's groups, decoded ahead of the model by worker processes, then its conversations."""
        settings = self.settings
        own = self._dealt(self.groups, Group(0, ()))
        dataset = GroupDataset(own, self.benchmarks, self.policy.encoder, self.reader, self.limits)
        parts: list[Any] = [dataset]
        if self.conversations:
            parts.append(self._dealt(self.conversations, self.conversations[0]._replace(line=0)))
        return DataLoader(
            ConcatDataset(parts),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=settings.num_workers,
            prefetch_factor=settings.prefetch if settings.num_workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def _dealt(self, items: list[Item], stand_in: Item) -> list[Item]:
        """Return one rank's items; where no rank can compute a block alone, all make as many steps."""
        trainer = self.trainer
        rank, ranks = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        own = items[rank::ranks]
        if self.policy.sharding is not None:
            own += [stand_in] * (-(-len(items) // ranks) - len(own))
        return own

    def transfer_batch_to_device(
        self, batch: tuple[Group, Batch] | Conversation, device: torch.device, dataloader_idx: int
    ) -> tuple[Group, Batch] | Conversation:
        """Only the inputs travel."""
        if isinstance(batch, Conversation):
            return batch
        group, questions = batch
        return group, questions.to(device)


def _as_it_is(batch: Any) -> Any:
    return batch
