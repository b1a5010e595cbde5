"""A module that only notes where in the run it is, and its runs."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from vcr1.checkpoints import Checkpoints
from vcr1.checkpoints.progress import batches_done

SIZE = 4
"""Micro-batches of an epoch."""


class Numbers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.tensor([float(number)])


class Endless(DistributedSampler[Any]):
    """Goes on where the run stands, as ``vcr1.data`` does."""

    def __init__(self, trainer: L.Trainer) -> None:
        super().__init__(Numbers(), num_replicas=1, rank=0)
        self.trainer = trainer

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Any:
        start = batches_done(self.trainer)
        return iter(range(start, start + SIZE))


class Diary(L.LightningModule):
    """Notes each micro-batch with everything that randomness and logging are made of."""

    def __init__(self, updates_per_rollout: int = 1, ballast: int = 1) -> None:
        super().__init__()
        self.register_buffer("ballast", torch.ones(ballast))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.updates_per_rollout = updates_per_rollout
        self.notes: list[Any] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([self.weight], lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 / (1 + update))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.notes.append((int(batch), self.trainer.current_epoch, batch_idx, self.trainer.global_step, rate))
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        if batch_idx == 0:
            steps: Any = self.trainer.fit_loop.epoch_loop
            self.notes.append(("evaluation", self.trainer.global_step, steps._batches_that_stepped))

    def on_train_epoch_end(self) -> None:
        self.notes.append(("end of epoch", self.trainer.current_epoch))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Numbers(), batch_size=None, sampler=Endless(self.trainer))

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Numbers(), batch_size=2)


def trainer_of(callback: Checkpoints, **limits: Any) -> L.Trainer:
    """A trainer that keeps quiet."""
    return L.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **limits,
    )


def resume(module: Diary, callback: Checkpoints, **limits: Any) -> L.Trainer:
    """Train, from the newest checkpoint if there is any."""
    newest: Path = callback.folder / "last.ckpt"
    trainer = trainer_of(callback, **limits)
    trainer.fit(module, ckpt_path=newest if newest.exists() else None)
    return trainer
