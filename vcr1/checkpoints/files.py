"""Checkpoints on disk: a file or, when sharded, a folder; complete under its name, or not there.

A checkpoint is written beside its place under a name that ends in ``.partial``, brought to the disk and then
renamed. The one before stays until then. What a killed run left unfinished keeps its ``.partial``.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader

log = logging.getLogger(__name__)

PARTIAL = ".partial"
"""How names of unfinished checkpoints end."""
LAST = "last.ckpt"
"""The link to the newest checkpoint."""
META = "meta.pt"
"""What a sharded checkpoint holds besides its shards."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return place of the checkpoint after ``step`` updates."""
    return folder / f"step-{step}.ckpt"


def scratch_path(path: Path) -> Path:
    """Return where a checkpoint is written before it gets its name."""
    return path.with_name(path.name + PARTIAL)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that have got their names, the newest first."""
    found = [path for path in folder.glob("step-*.ckpt") if not path.is_symlink()]
    # By time, not by update: a folder may hold those of an older run that had come further.
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read; one that cannot is skipped with a warning."""
    for path in complete_checkpoints(folder):
        try:
            read_facts(path)
        except UnreadableError as error:
            log.warning("%s cannot be read (%s); going on to the one before", path, error)
        else:
            return path
    return None


class UnreadableError(Exception):
    """A checkpoint that is damaged or something else than a checkpoint."""


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says besides weights; tensors are mapped, not read.

    Raises:
        UnreadableError: it is cut off, empty, or no checkpoint.
    """
    try:
        if path.is_dir():
            _check_shards(path)
            path = path / META
        facts = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        lines = str(error).splitlines()
        raise UnreadableError(lines[0] if lines else type(error).__name__) from error
    if not isinstance(facts, dict) or "global_step" not in facts:
        raise UnreadableError("it is no checkpoint of a training")
    return facts


def _check_shards(folder: Path) -> None:
    """See that the shards are there that the index names, in full length.

    Raises:
        ValueError: one of them is not.
    """
    for part in FileSystemReader(folder).read_metadata().storage_data.values():
        shard = folder / part.relative_path
        size = shard.stat().st_size if shard.is_file() else 0
        if size < part.offset + part.length:
            raise ValueError(f"{shard.name} has {size} bytes instead of {part.offset + part.length}")


def size_of(path: Path) -> int:
    """Return bytes of a checkpoint."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())


def publish(scratch: Path, path: Path) -> None:
    """Bring a finished checkpoint to the disk and give it its name; what had the name goes."""
    for part in [*scratch.rglob("*"), scratch] if scratch.is_dir() else [scratch]:
        sync(part)
    aside = None
    if path.exists() and (path.is_dir() or scratch.is_dir()):  # a folder takes no other one's place
        aside = path.with_name(f"{path.name}.old{PARTIAL}")
        remove(aside)
        path.rename(aside)
    scratch.replace(path)
    sync(path.parent)
    if aside is not None:
        remove(aside)


def point_last(path: Path) -> None:
    """Let the link to the newest checkpoint name this one."""
    link = path.with_name(LAST)
    scratch = scratch_path(link)
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(path.name)
    scratch.replace(link)
    sync(path.parent)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for path in complete_checkpoints(folder)[keep:]:
        remove(path)


def remove_partials(folder: Path) -> None:
    """Remove what runs that were killed left unfinished."""
    for path in folder.iterdir():
        if PARTIAL in path.name:  # a strategy may have added to it
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
