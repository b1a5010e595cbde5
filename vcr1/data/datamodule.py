"""The LightningDataModules: one for each task, and the mixture of them that a run trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from vcr1.data.dataset import Encode, VideoDataset, with_wrong_videos
from vcr1.data.loading import (
    LoaderSettings,
    LookaheadLoader,
    RepeatingDataset,
    as_it_is,
    batches_trained,
    lookahead_of,
    repeats_of,
    worker_settings,
)
from vcr1.data.order import MixtureSampler, Order
from vcr1.errors import UserError
from vcr1.readers import Annotations
from vcr1.records import Sample
from vcr1.tasks.base import Task
from vcr1.video import FrameBudget, GuardedReader, PatchGrid


class TaskDataModule(L.LightningDataModule):
    """Training and held-out data of one task.

    Args:
        task: the task.
        annotations: of ``train`` and ``val``; either may be missing.
        encode: from prompt and clip to model inputs.
        grid: frames and pixels per vision token of the model.
        budget: frames and pixels that a clip may cost.
        settings: how samples become batches.
        reader: decodes the videos; None for one as the settings say.

    Raises:
        UserError: a task that shows a number of frames that the model cannot pack into its temporal patches.
    """

    def __init__(
        self,
        task: Task,
        annotations: Mapping[str, Annotations],
        encode: Encode,
        grid: PatchGrid,
        budget: FrameBudget | None = None,
        settings: LoaderSettings | None = None,
        reader: GuardedReader | None = None,
    ) -> None:
        super().__init__()
        if task.frames is not None and task.frames % grid.temporal:
            raise UserError(
                f"tasks.{task.name}.boxes={task.frames}: the model takes {grid.temporal} frames at a time; "
                f"choose a multiple"
            )
        self.task = task
        self.annotations = dict(annotations)
        self.encode = encode
        self.grid = grid
        self.budget = budget or FrameBudget()
        self.settings = settings or LoaderSettings()
        self.reader = reader or self.settings.reader()

    def samples(self, split: str) -> list[Sample]:
        """Return samples of ``train`` or ``val``.

        Raises:
            UserError: the split is not configured.
        """
        if split not in self.annotations:
            raise UserError(f"data.sources.{self.task.name}.{split} is not configured")
        return self.annotations[split].samples

    def dataset(self, samples: Sequence[Sample]) -> VideoDataset:
        """Return samples of this task, to be decoded and encoded as its settings say."""
        return VideoDataset(samples, self.task, self.encode, self.budget, self.grid, self.reader)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches; an incomplete last one is left out, so that every update weighs the same."""
        return training_loader([self], self.settings, trainer=self.trainer)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return all held-out samples in order; nothing where no ``val`` is configured."""
        return self._loader(self.samples("val")) if "val" in self.annotations else []

    def wrong_video_dataloader(self) -> DataLoader[Any]:
        """Return the held-out questions about other videos of the same length."""
        return self._loader(with_wrong_videos(self.samples("val"), self.settings.seed))

    def _loader(self, samples: Sequence[Sample]) -> DataLoader[Any]:
        dataset = self.dataset(samples)
        size = self.settings.eval_batch_size
        return DataLoader(dataset, size, collate_fn=dataset.collate, **worker_settings(self.settings))


class MixtureDataModule(L.LightningDataModule):
    """Several tasks in one run: each micro-batch holds one task, each task is evaluated by itself.

    Args:
        parts: the tasks' data, with distinct task names.
        weights: task's name -> passes over its training samples per epoch; 1 where it is not named.
        settings: how samples become batches.

    Raises:
        UserError: no task, or two of one name.
    """

    def __init__(
        self,
        parts: Sequence[TaskDataModule],
        weights: Mapping[str, float] | None = None,
        settings: LoaderSettings | None = None,
    ) -> None:
        super().__init__()
        self.parts = {part.task.name: part for part in parts}
        if len(self.parts) != len(parts) or not parts:
            raise UserError(f"a mixture of the tasks {[part.task.name for part in parts]}")
        self.weights = dict(weights or {})
        self.settings = settings or LoaderSettings()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return training batches of all tasks in a random, repeatable order; see :class:`Order`."""
        return training_loader(list(self.parts.values()), self.settings, self.weights, self.trainer)

    def val_dataloader(self) -> list[Any]:
        """Return one loader for each task that has held-out samples."""
        return [part.val_dataloader() for part in self.parts.values() if "val" in part.annotations]

    def wrong_video_dataloader(self) -> list[Any]:
        """Return the held-out questions about other videos of the same length, one loader for each task."""
        return [part.wrong_video_dataloader() for part in self.parts.values() if "val" in part.annotations]


def training_loader(
    parts: Sequence[TaskDataModule],
    settings: LoaderSettings,
    weights: Mapping[str, float] | None = None,
    trainer: L.Trainer | None = None,
) -> DataLoader[Any]:
    """Return training batches of some tasks for one rank, from where the trainer's progress stands.

    Args:
        parts: the tasks' data.
        settings: how samples become batches.
        weights: task's name -> passes over its samples per epoch; 1 where it is not named.
        trainer: knows the ranks, how far a resumed run had come, and how often its module trains on a
            rollout; None for a single process and once.

    Raises:
        UserError: several updates per rollout, but an epoch has too few micro-batches for a single one.
    """
    names = [part.task.name for part in parts]
    order = Order(
        sizes={part.task.name: len(part.samples("train")) for part in parts},
        weights={name: (weights or {}).get(name, 1.0) for name in names},
        batch_size=settings.batch_size,
        world_size=1 if trainer is None else trainer.world_size,
        shuffle=settings.shuffle,
        seed=settings.seed,
    )
    dataset = RepeatingDataset({part.task.name: part.dataset(part.samples("train")) for part in parts})
    progress = None if trainer is None else partial(batches_trained, trainer)
    rank, repeats = 0 if trainer is None else trainer.global_rank, repeats_of(trainer)
    sampler = MixtureSampler(dataset, order, rank, progress, repeats)
    if len(sampler) == 0:
        raise UserError(
            f"trainer.accumulate_grad_batches={repeats.block} with algorithm.updates_per_rollout="
            f"{repeats.updates}: an epoch has only {len(order)} micro-batches, too few for one update"
        )
    # The sampler's keys are whole micro-batches: nothing is left to collate.
    workers = worker_settings(settings) | {"persistent_workers": settings.num_workers > 0}
    made = LookaheadLoader(dataset, batch_size=None, sampler=sampler, collate_fn=as_it_is, **workers)
    made.ahead = lookahead_of(trainer)
    return made
