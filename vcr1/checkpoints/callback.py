"""When checkpoints are taken, and what a run does that is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from vcr1.checkpoints.files import checkpoint_path, remove_partials
from vcr1.checkpoints.progress import at_boundary, set_progress
from vcr1.checkpoints.saving import save
from vcr1.errors import Preempted, UserError

log = logging.getLogger(__name__)

FACTS = "vcr1"
"""Where a checkpoint keeps what it says of its run."""


def is_trial(trainer: L.Trainer) -> bool:
    """Return whether the run is one of Lightning's ``fast_dev_run``, which leave nothing behind."""
    return bool(getattr(trainer, "fast_dev_run", False))


class Checkpoints(Checkpoint):
    """Saves the whole state of a run every so many updates, when it ends, and when it is told to stop.

    A checkpoint is taken between two updates, after what belongs to the first of them: its metrics are
    logged, and its evaluation, if one was due, is over. A run that goes on from there does what the
    uninterrupted one would have done. With several updates per rollout it is taken between two rollouts, as
    rollouts are not saved.

    SIGTERM and SIGUSR1, which schedulers send before they take a machine away, end the run at the next such
    place, on all ranks.

    Args:
        folder: where ``step-N.ckpt`` and the link ``last.ckpt`` are written.
        every: updates between two of them.
        keep: how many stay, the newest ones.

    Attributes:
        config: the run's config, which checkpoints tell.
        resumed: the checkpoint that the run goes on from.

    Raises:
        UserError: a number below 1.
    """

    def __init__(self, folder: str, every: int = 100, keep: int = 2) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"callbacks.checkpoint.{name}={value} is no whole number of at least 1")
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.config: dict[str, Any] = {}
        self.resumed: Path | None = None
        self._saved = 0  # updates of the newest checkpoint
        self._told: signal.Signals | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See that all ranks go on from one place, and clean up after a run that was killed.

        Raises:
            UserError: ranks found different checkpoints.
        """
        if stage != "fit" or is_trial(trainer):
            return
        mine = str(self.resumed or "no checkpoint")
        first = trainer.strategy.broadcast(mine)
        if mine != first:
            raise UserError(
                f"rank {trainer.global_rank} found {mine} to go on from, but the first rank {first}: run_dir "
                f"must be one folder that all machines see; name it, e.g. hydra.run.dir=runs/NAME"
            )
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_partials(self.folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on, the run is told to stop instead of being stopped."""
        self._saved = trainer.global_step
        self._listen(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An evaluation by itself is told to stop, too."""
        self._listen(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Between two updates: save what is due, and stop if told to.

        Raises:
            Preempted: the run was told to stop; it is saved.
            UserError: the checkpoint cannot be written.
        """
        if is_trial(trainer) or not at_boundary(trainer):
            return
        told = self._told_to_stop(trainer)
        if told or trainer.global_step // self.every > self._saved // self.every:
            self._save(trainer)
        if told:
            self._stop(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """An evaluation may take longer than a scheduler waits: it is left when the run is told to stop.

        Raises:
            Preempted: the run was told to stop; what was trained is saved.
        """
        fitting = trainer.state.fn == TrainerFn.FITTING
        if is_trial(trainer) or (fitting and not self._may_leave(trainer)):
            return
        if self._told_to_stop(trainer):
            if fitting:
                self._save(trainer)
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The end of the run."""
        if not is_trial(trainer):
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell the config, and the place in the run in the form that can be gone on from."""
        checkpoint[FACTS] = {"config": self.config, "world_size": trainer.world_size}
        set_progress(checkpoint["loops"], int(trainer.num_training_batches), trainer.global_step)

    def _may_leave(self, trainer: L.Trainer) -> bool:
        """Return whether an evaluation may be left: not where a resume would find nothing to do."""
        return at_boundary(trainer) and not 0 < trainer.max_steps <= trainer.global_step

    def _save(self, trainer: L.Trainer) -> None:
        """Write a checkpoint, unless the newest one is of this update."""
        if trainer.global_step == self._saved:
            return
        for logger in trainer.loggers:
            logger.save()  # so that no number of an update is lost that is not trained again
        save(trainer, checkpoint_path(self.folder, trainer.global_step), self.keep)
        self._saved = trainer.global_step

    def _listen(self, trainer: L.Trainer) -> None:
        """Take signals in the place of Lightning, which puts back what was there before when it is done.

        Lightning's own handlers talk to the other ranks from within the signal, in the midst of whatever
        these are doing, and stop or save between any two micro-batches.
        """
        if threading.current_thread() is threading.main_thread() and not is_trial(trainer):
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = signal.Signals(number)

    def _told_to_stop(self, trainer: L.Trainer) -> bool:
        """Return whether any rank has been told to; all of them answer the same."""
        return bool(trainer.strategy.reduce_boolean_decision(self._told is not None, all=False))

    def _stop(self, trainer: L.Trainer) -> None:
        """End the run.

        Raises:
            Preempted: always.
        """
        name = "another rank" if self._told is None else self._told.name
        saved = (
            checkpoint_path(self.folder, self._saved) if self._saved else "nothing, as nothing was trained"
        )
        # Ranks that Lightning started must seem well, or it would kill the first one.
        raise Preempted(
            f"stopped by {name}; saved: {saved}. The same command with ckpt_path=auto goes on",
            code=Preempted.CODE if trainer.is_global_zero else 0,
        )
