"""How samples become batches: settings, decoding processes, and batches that come again or are seen ahead."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from vcr1.data.dataset import MixedDataset
from vcr1.data.order import Key
from vcr1.errors import UserError
from vcr1.records import Batch
from vcr1.records.repeats import Repeated, Repeats, ReplayBatch
from vcr1.video import DecodeLimits, GuardedReader


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


def as_it_is(batch: Any) -> Any:
    """Return a batch: a sampler's keys are whole micro-batches, and nothing is left to collate."""
    return batch


def worker_settings(settings: LoaderSettings) -> dict[str, Any]:
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
