"""Checkpoints on disk: a file or, when sharded, a folder; complete under its name, or not there.

A checkpoint is written beside its place under a name that ends in ``.partial``, brought to the disk and then
renamed. The one before stays until then. What a killed run left unfinished keeps its ``.partial``.

A checkpoint carries a check sum of all of its content: torch writes one for each of its records, and
:func:`publish` one for the index of shards.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vcr1.distributed.shards import INDEX, ShardReader

log = logging.getLogger(__name__)

PARTIAL = ".partial"
"""How names of unfinished checkpoints end."""
LAST = "last.ckpt"
"""The link to the newest checkpoint."""
INDEX_SUM = "metadata.sha256"
"""Its check sum."""
META = "meta.pt"
"""What a sharded checkpoint holds besides its shards."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return place of the checkpoint after ``step`` updates."""
    return folder / f"step-{step}.ckpt"


def scratch_path(path: Path) -> Path:
    """Return where a checkpoint is written before it gets its name."""
    return path.with_name(path.name + PARTIAL)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that have got their names, the one after most updates first.

    A clock may be set back, and copies have other dates: so the time of a file says nothing.
    """
    found = [path for path in folder.glob("step-*.ckpt") if not path.is_symlink()]
    return sorted((path for path in found if updates_of(path) >= 0), key=updates_of, reverse=True)


def updates_of(path: Path) -> int:
    """Return the updates that a checkpoint's name states; -1 for another name."""
    number = path.name.removeprefix("step-").removesuffix(".ckpt")
    return int(number) if number.isdecimal() else -1


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that is whole; one that is not is skipped with a warning."""
    for path in complete_checkpoints(folder):
        try:
            read_facts(path, whole=True)
        except UnreadableError as error:
            log.warning("%s cannot be read (%s); going on to the one before", path, error)
        else:
            return path
    return None


DAMAGE = (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError)
"""What libraries raise at a file that is not what they wrote."""


class UnreadableError(Exception):
    """A checkpoint that is damaged or something else than a checkpoint."""


def read_facts(path: Path, whole: bool = False) -> dict[str, Any]:
    """Return what a checkpoint says besides weights; tensors are mapped, not read.

    Args:
        path: file or folder.
        whole: read all of it, and compare it with its check sums.

    Raises:
        UnreadableError: it is cut off, empty, changed, or no checkpoint.
    """
    try:
        if whole:
            check_sums(path)
        elif path.is_dir():
            _check_shards(path)
        facts = torch.load(
            path / META if path.is_dir() else path, map_location="cpu", mmap=True, weights_only=True
        )
    except DAMAGE as error:
        lines = str(error).splitlines()
        raise UnreadableError(lines[0] if lines else type(error).__name__) from error
    if not isinstance(facts, dict) or "global_step" not in facts:
        raise UnreadableError("it is no checkpoint of a training")
    return facts


def check_sums(path: Path) -> None:
    """Read all of a checkpoint, and compare it with its check sums.

    Args:
        path: file or folder.

    Raises:
        UnreadableError: it is cut off, or is not what was written.
    """
    try:
        if path.is_dir():
            _check_shards(path, whole=True)
            path = path / META
        if path.is_file():
            _check_records(path)
    except DAMAGE as error:
        raise UnreadableError(str(error).split("\n")[0] or type(error).__name__) from error


def _check_records(file: Path | BinaryIO) -> None:
    """Compare the content of a file of torch with the check sums of its records.

    Raises:
        ValueError: a record is another one than was written.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("the file is cut off, or no checkpoint at all")
    try:
        with zipfile.ZipFile(file) as records:
            damaged = records.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"the file is damaged ({error})") from error
    if damaged is not None:
        raise ValueError(f"the file is damaged: {damaged} in it is not what was written")


def _check_shards(folder: Path, whole: bool = False) -> None:
    """See that the shards are there that the index names, in full length, and as they were written.

    Raises:
        ValueError: one of them is not.
    """
    sums = folder / INDEX_SUM
    if whole and sums.is_file() and sums.read_text() != _digest(folder / INDEX):
        raise ValueError(f"{INDEX} in it is not what was written")
    try:
        found = ShardReader(folder).read_metadata().storage_data
    except DAMAGE as error:
        raise ValueError(f"{INDEX} cannot be read ({error})") from error
    for part in found.values():
        shard = folder / part.relative_path
        size = shard.stat().st_size if shard.is_file() else 0
        if size < part.offset + part.length:
            raise ValueError(f"{shard.name} has {size} bytes instead of {part.offset + part.length}")
        if whole:
            with shard.open("rb") as file:
                file.seek(part.offset)
                _check_records(io.BytesIO(file.read(part.length)))


def _digest(path: Path) -> str:
    """Return a check sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return bytes of a checkpoint."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())


def publish(scratch: Path, path: Path) -> None:
    """Bring a finished checkpoint to the disk and give it its name; what had the name goes."""
    if (scratch / INDEX).is_file():
        (scratch / INDEX_SUM).write_text(_digest(scratch / INDEX))
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


def set_aside(folder: Path, after: int | None) -> None:
    """Move checkpoints that do not belong to the run in a folder into a folder of their own, ``aside-N``.

    Args:
        folder: of the checkpoints.
        after: updates that the run goes on from; those of later ones are moved. None for all of them.
    """
    found = [
        path for path in complete_checkpoints(folder) if after is None or (updates_of(path) or 0) > after
    ]
    if not found:
        return
    aside = move_aside(found, folder)
    remaining = complete_checkpoints(folder)
    remove(folder / LAST)
    if remaining:
        point_last(remaining[0])
    log.warning("checkpoints of an older run are in %s now: %s", aside, ", ".join(p.name for p in found))


def move_aside(paths: Sequence[Path], folder: Path) -> Path:
    """Move files of an older run into a new folder, ``aside-N``, and return it."""
    numbers = [int(one.name[6:]) for one in folder.glob("aside-*") if one.name[6:].isdecimal()]
    aside = folder / f"aside-{max(numbers, default=0) + 1}"
    aside.mkdir()
    for path in paths:
        path.rename(aside / path.name)
    return aside


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
