"""Where in the run a checkpoint was taken, in Lightning's own counters."""

from __future__ import annotations

import math
from typing import Any

import lightning as L


def batches_done(trainer: L.Trainer) -> int:
    """Return micro-batches that a run has trained, those before a resume included."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(total.processed)


def at_boundary(trainer: L.Trainer) -> bool:
    """Return whether no gradients are half gathered and no rollout is still to be trained on.

    Both live in memory only. To be asked between two micro-batches.
    """
    updates = int(getattr(trainer.lightning_module, "updates_per_rollout", 1))
    if math.isinf(trainer.num_training_batches):  # before the first epoch, as in Lightning's sanity check
        return True
    within = batches_done(trainer) % int(trainer.num_training_batches)
    return within % (int(trainer.accumulate_grad_batches) * updates) == 0


def set_progress(loops: dict[str, Any], batches_per_epoch: int, updates: int) -> None:
    """Write the counters of a checkpoint as Lightning itself writes them right after a micro-batch.

    That is the one state from which Lightning goes on exactly, as often as one likes. After a resume at the
    end of an epoch its counters of epochs lag, and a checkpoint that takes them over trains without end; and
    a checkpoint from before an evaluation or in the midst of one repeats or leaves out micro-batches.

    Args:
        loops: ``loops`` of the checkpoint; changed in place.
        batches_per_epoch: micro-batches of an epoch on one rank.
        updates: done so far.
    """
    state = loops["fit_loop"]
    batches = state["epoch_loop.batch_progress"]
    done = batches["total"]["processed"]
    if done == 0:
        return
    epoch = (done - 1) // batches_per_epoch
    within = done - epoch * batches_per_epoch
    epochs = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch, "completed": epoch}
    state["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    state["epoch_loop.batch_progress"] = {
        "total": {"ready": done, "started": done, "processed": done, "completed": done - 1},
        "current": {"ready": within, "started": within, "processed": within, "completed": within - 1},
        "is_last_batch": within == batches_per_epoch,
    }
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = updates - 1  # a resume counts the last one
    nothing = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    state["epoch_loop.val_loop.batch_progress"] = {
        "total": nothing,
        "current": dict(nothing),
        "is_last_batch": False,
    }
