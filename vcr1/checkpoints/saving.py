"""How a checkpoint gets to the disk, and what is said when it does not."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vcr1.checkpoints.files import (
    complete_checkpoints,
    point_last,
    prune,
    publish,
    remove,
    scratch_path,
    size_of,
)
from vcr1.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a disk, a quota or a size limit that is used up."""


class StreamingCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint straight into its file.

    Lightning's own way gathers all of it in memory a second time, and then writes it to the folder for
    temporary files first. Neither is needed where what is written gets its name later.

    Attributes:
        problem: why the last write failed; None where it did not. Kept instead of raised, as the other ranks
            would wait for this one.
    """

    def __init__(self) -> None:
        self.problem: Exception | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        self.problem = None
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps what the system says
            self.problem = error


def save(trainer: L.Trainer, path: Path, keep: int) -> None:
    """Write a checkpoint beside its place and put it there; all ranks together.

    Args:
        trainer: of the run.
        path: of the checkpoint; a file, or a folder where the strategy writes shards.
        keep: how many checkpoints to leave, this one included.

    Raises:
        UserError: it cannot be written, on all ranks; earlier ones are as they were.
    """
    _together(trainer, path, _space_problem(path) if trainer.is_global_zero else None)
    problem: Exception | None = None
    io = StreamingCheckpointIO()
    trainer.strategy.checkpoint_io = io
    try:
        trainer.save_checkpoint(scratch_path(path), weights_only=False)
        problem = io.problem
    except Exception as error:
        if not list(causes(error)):
            raise
        problem = error
    if problem is None and trainer.is_global_zero:
        try:
            publish(scratch_path(path), path)
            point_last(path)
            prune(path.parent, keep)
        except OSError as error:
            problem = error
    _together(trainer, path, None if problem is None else _reason(problem))


def _together(trainer: L.Trainer, path: Path, problem: str | None) -> None:
    """Fail on all ranks if one of them has a problem.

    Raises:
        UserError: names what went wrong, and the last good checkpoint.
    """
    if not trainer.strategy.reduce_boolean_decision(problem is not None, all=False):
        return
    if trainer.is_global_zero:
        remove(scratch_path(path))
    good = complete_checkpoints(path.parent)
    kept = f"the last good one is {good[0]}" if good else "there is no earlier one"
    raise UserError(
        f"checkpoint {path}: {problem or 'another rank could not write its share'}; {kept}. Make room, or "
        f"choose another place (callbacks.checkpoint.folder), then go on with ckpt_path=auto"
    )


def _space_problem(path: Path) -> str | None:
    """Return what is wrong with the space there, measured by the checkpoint before."""
    older = complete_checkpoints(path.parent)
    if not older:
        return None
    needed, free = size_of(older[0]), shutil.disk_usage(path.parent).free
    return f"no space: it takes {needed:,} bytes and {free:,} are free" if free < needed else None


def _reason(problem: Exception) -> str:
    """Return what the system said."""
    for cause in causes(problem):
        text = cause.strerror or str(cause)
        return f"no space ({text})" if cause.errno in FULL else text
    return str(problem)


def causes(error: BaseException | None) -> Iterator[OSError]:
    """Yield what the system said, beneath what libraries made of it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError):
            yield error
        # A sharded write collects what failed on which rank.
        for failure in getattr(error, "failures", {}).values():
            yield from causes(failure[0])
        error = error.__cause__ or error.__context__
