"""The LightningDataModule of a task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import lightning as L
import torch
from torch.utils.data import DataLoader

from vcr1.data.dataset import Encode, VideoDataset, with_wrong_videos
from vcr1.errors import UserError
from vcr1.records import Sample
from vcr1.tasks.annotations import Annotations
from vcr1.tasks.base import Task
from vcr1.video import FrameBudget, PatchGrid


class TaskDataModule(L.LightningDataModule):
    """Training and held-out data of one task.

    Decoding and encoding run in worker processes and overlap the training step.

    Args:
        task: the task.
        annotations: of ``train`` and ``val``; either may be missing.
        encode: from prompt and clip to model inputs.
        grid: frames and pixels per vision token of the model.
        budget: frames and pixels that a clip may cost.
        batch_size: prompts per micro-batch and rank (P).
        eval_batch_size: prompts per batch in evaluation.
        num_workers: decoding processes per rank.
        prefetch: batches that each worker prepares ahead.
        decoder: ``auto`` (decord, PyAV where decord cannot), ``decord`` or ``pyav``.
        shuffle: train in a random order, a new one in each epoch; else in that of the annotations.
        seed: of that order.
    """

    def __init__(
        self,
        task: Task,
        annotations: Mapping[str, Annotations],
        encode: Encode,
        grid: PatchGrid,
        budget: FrameBudget | None = None,
        *,
        batch_size: int = 1,
        eval_batch_size: int = 1,
        num_workers: int = 4,
        prefetch: int = 2,
        decoder: str = "auto",
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise UserError(f"data.loader.{name}={value} is less than {least}")
        self.task = task
        self.annotations = dict(annotations)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.prefetch = prefetch
        self.shuffle = shuffle
        self.seed = seed
        self.budget = budget or FrameBudget()
        self.grid = grid
        self._dataset = partial(
            VideoDataset, task=task, encode=encode, budget=self.budget, grid=grid, decoder=decoder
        )

    def samples(self, split: str) -> list[Sample]:
        """Samples of ``train`` or ``val``.

        Raises:
            UserError: the split is not configured.
        """
        if split not in self.annotations:
            raise UserError(f"data.sources.{self.task.name}.{split} is not configured")
        return self.annotations[split].samples

    def train_dataloader(self) -> DataLoader[object]:
        """Training batches; an incomplete last one is left out, so that every update weighs the same."""
        samples = self.samples("train")
        if len(samples) < self.batch_size:
            raise UserError(
                f"data.loader.batch_size={self.batch_size} but there are only {len(samples)} training samples"
            )
        return self._loader(samples, self.batch_size, training=True)

    def val_dataloader(self) -> DataLoader[object] | list[object]:
        """All held-out samples in order; nothing where no ``val`` is configured."""
        if "val" not in self.annotations:
            return []
        return self._loader(self.samples("val"), self.eval_batch_size)

    def wrong_video_dataloader(self) -> DataLoader[object]:
        """The held-out questions about other videos of the same length."""
        return self._loader(with_wrong_videos(self.samples("val"), self.seed), self.eval_batch_size)

    def _loader(self, samples: list[Sample], batch_size: int, training: bool = False) -> DataLoader[object]:
        dataset = self._dataset(samples)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=training and self.shuffle,
            drop_last=training,
            generator=torch.Generator().manual_seed(self.seed) if training else None,
            num_workers=self.num_workers,
            collate_fn=dataset.collate,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=self.prefetch if self.num_workers else None,
            persistent_workers=training and self.num_workers > 0,
        )
