"""The LightningDataModules: one for each task, and the mixture of them that a run trains on."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from vcr1.data.dataset import Encode, MixedDataset, VideoDataset, with_wrong_videos
from vcr1.data.order import Key, MixtureSampler, Order
from vcr1.errors import UserError
from vcr1.readers import Annotations
from vcr1.records import Batch, Sample
from vcr1.records.repeats import Repeated, Repeats, ReplayBatch
from vcr1.tasks.base import Task
from vcr1.video import DecodeLimits, FrameBudget, GuardedReader, PatchGrid


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """How samples become batches.

    Attributes:
        batch_size: prompts per micro-batch and rank (P).
        eval_batch_size: prompts per batch in evaluation.
        num_workers: decoding processes per rank; they overlap the training step.
        prefetch: batches that each worker prepares ahead.
        decoder: ``pyav`` (``auto`` is the same), or ``decord``; see :func:`vcr1.video.read_clip`.
        shuffle: train in a random order, a new one in each epoch; else in that of the annotations.
        seed: of that order.
        decode_seconds: CPU seconds that a video may take to decode, and one more for every 2 MB of its file;
            None for no limit.
        decode_memory: GiB of memory that it may take; None for no limit.

    Raises:
        UserError: a size below 1, workers below 0, or a limit that is not positive.
    """

    batch_size: int = 1
    eval_batch_size: int = 1
    num_workers: int = 4
    prefetch: int = 2
    decoder: str = "auto"
    shuffle: bool = True
    seed: int = 0
    decode_seconds: float | None = 60.0
    decode_memory: float | None = 2.0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("num_workers", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UserError(f"data.loader.{name}={value} is no whole number of at least {least}")
        for name in ("decode_seconds", "decode_memory"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise UserError(f"data.loader.{name}={value} is no positive number; null is no limit")

    @property
    def limits(self) -> DecodeLimits:
        """Return what decoding a video may cost."""
        return DecodeLimits(self.decode_seconds, self.decode_memory)

    def reader(self, remember: str | Path | None = None) -> GuardedReader:
        """Return what decodes the videos; ``remember``: the file for those that crash, hang or flood it."""
        return GuardedReader(self.decoder, self.limits, remember)


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
        return DataLoader(dataset, size, collate_fn=dataset.collate, **_workers(self.settings))


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
    workers = _workers(settings) | {"persistent_workers": settings.num_workers > 0}
    made = LookaheadLoader(dataset, batch_size=None, sampler=sampler, collate_fn=_as_it_is, **workers)
    made.ahead = lookahead_of(trainer)
    return made


class LookaheadLoader(DataLoader[Any]):
    """A loader whose micro-batches know those that follow them.

    Attributes:
        ahead: how many of them.
    """

    ahead = 0

    def __iter__(self) -> Any:
        """Yield each micro-batch with the next ones of the epoch in its ``ahead``."""
        batches = super().__iter__()
        if not self.ahead:
            return batches
        return self._with_next(batches)

    def _with_next(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        window = deque(islice(batches, self.ahead + 1))
        while window:
            batch = window.popleft()
            batch.ahead = tuple(window)
            yield batch
            window.extend(islice(batches, 1))


def lookahead_of(trainer: L.Trainer | None) -> int:
    """Return how many further micro-batches the module has to see: the rest of an update, or none."""
    module = None if trainer is None else trainer.lightning_module
    if trainer is None or not getattr(module, "looks_ahead", False):
        return 0
    return int(trainer.accumulate_grad_batches) - 1


class RepeatingDataset(MixedDataset):
    """The data sets of several tasks, where a micro-batch that comes again costs no decoding."""

    def __getitem__(self, keys: Sequence[Key] | Repeated) -> Batch:
        """Return the micro-batch of these keys, or what stands for one that comes again."""
        if isinstance(keys, Repeated):
            return ReplayBatch(self.parts[keys.task].task)
        return super().__getitem__(keys)


def repeats_of(trainer: L.Trainer | None) -> Repeats:
    """Return how often the module wants to train on each micro-batch; once, where it does not say."""
    module = None if trainer is None else trainer.lightning_module
    updates = int(getattr(module, "updates_per_rollout", 1))
    if trainer is None or updates == 1:
        return Repeats()
    return Repeats(updates, int(trainer.accumulate_grad_batches))


def batches_trained(trainer: L.Trainer) -> int:
    """Return micro-batches that a run has trained, those before a resume included.

    Of all that Lightning keeps of its progress, this alone is saved in every checkpoint and never reset.
    """
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(total.processed)


def _as_it_is(batch: Any) -> Any:
    return batch


def _workers(settings: LoaderSettings) -> dict[str, Any]:
    """Return how a DataLoader employs its decoding processes."""
    return {
        "num_workers": settings.num_workers,
        "prefetch_factor": settings.prefetch if settings.num_workers else None,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": outlive_one_sigterm,
    }


def outlive_one_sigterm(worker: int) -> None:
    """Let a decoding process live when a scheduler tells all processes of a job to stop.

    The run has to save itself then, and a worker that dies ends it at once. A second SIGTERM counts.
    """

    def next_time(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, next_time)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
