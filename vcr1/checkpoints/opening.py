"""Checkpoints as files: which weights one holds, and reading them without ranks and without a trainer."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vcr1.checkpoints.files import DAMAGE, META, UnreadableError, check_sums, newest_checkpoint
from vcr1.distributed.shards import INDEX, ShardReader, load_shards
from vcr1.errors import UserError

_WEIGHTS = "state_dict"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk.

    Attributes:
        path: a file, or a folder of shards.
        step: updates that had been made; None where it does not say so.
        saved: name of a weight, as in the module that was trained -> its shape and type.
        rule: for the position of text behind a video; None where it does not say so.
        read: fills the given tensors, by name, in place; they need the saved shapes, not the types.
    """

    path: Path
    step: int | None
    saved: Mapping[str, tuple[torch.Size, torch.dtype]]
    read: Callable[[Mapping[str, Tensor]], None]
    rule: str | None = None


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint at a path, or the last one of the run whose folder it is; all of it is checked.

    Raises:
        UserError: there is none, or it is not what was written.
    """
    if path.is_file() or (path / INDEX).is_file():
        try:
            check_sums(path)
        except UnreadableError as error:
            raise UserError(f"checkpoint={path}: {error}") from error
        return path
    if not path.is_dir():
        raise UserError(f"checkpoint={path}: there is no such checkpoint")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (own := newest_checkpoint(folder)) is not None:
        return own
    found = list(folder.glob("*.ckpt"))  # of another program of Lightning
    found = [one for one in found if one.name.startswith("last")] or found
    if not found:
        raise UserError(f"checkpoint={path}: neither a checkpoint nor the folder of a run that has saved one")
    return max(found, key=lambda one: one.stat().st_mtime)


def open_checkpoint(path: Path, trust: bool = False) -> Checkpoint:
    """See what a checkpoint holds; its weights stay on disk until they are read.

    Args:
        path: a file, or a folder of shards.
        trust: read objects beside weights and plain values, which can run code.

    Raises:
        UserError: it cannot be read, or holds other things than a checkpoint of a run.
    """
    return _sharded(path, trust) if path.is_dir() else _single(path, trust)


def _single(path: Path, trust: bool) -> Checkpoint:
    """Return a file that Lightning wrote."""
    content = _unpickled(path, trust)
    state = content.get(_WEIGHTS)
    if not isinstance(state, dict):
        raise UserError(f"checkpoint={path}: no checkpoint of a run, it has no {_WEIGHTS}")

    def read(targets: Mapping[str, Tensor]) -> None:
        for name, target in targets.items():
            target.copy_(state[name])

    return Checkpoint(
        path,
        content.get("global_step"),
        {name: (tensor.shape, tensor.dtype) for name, tensor in state.items() if isinstance(tensor, Tensor)},
        read,
        content.get("text_after_video"),
    )


def _sharded(path: Path, trust: bool) -> Checkpoint:
    """Return a folder that ranks wrote together, read by one process without a process group."""
    try:
        index = ShardReader(path).read_metadata().state_dict_metadata
    except DAMAGE as error:
        raise UserError(f"checkpoint={path}: {INDEX} cannot be read ({_first_line(error)})") from error
    facts = _unpickled(path / META, trust) if (path / META).is_file() else {}

    def read(targets: Mapping[str, Tensor]) -> None:
        load_shards({_WEIGHTS: dict(targets)}, path, alone=True)

    prefix = f"{_WEIGHTS}."
    saved = {
        name.removeprefix(prefix): (kept.size, kept.properties.dtype)
        for name, kept in index.items()
        if name.startswith(prefix) and isinstance(kept, TensorStorageMetadata)
    }
    return Checkpoint(path, facts.get("global_step"), saved, read, facts.get("text_after_video"))


def _unpickled(path: Path, trust: bool) -> dict[str, Any]:
    """Return the content of a file of torch, its tensors left on disk.

    Raises:
        UserError: it cannot be read.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"checkpoint={path}: the file is cut off, or no checkpoint at all")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=not trust)
    except pickle.UnpicklingError as error:
        if trust:
            raise UserError(f"checkpoint={path}: the file is damaged ({_first_line(error)})") from error
        raise UserError(
            f"checkpoint={path}: it holds objects beside weights and plain values, as a callback "
            f"may keep them; reading them can run code; trust=true allows it, for a file that you trust"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"checkpoint={path}: the file is damaged ({_first_line(error)})") from error
    return content if isinstance(content, dict) else {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    return lines[0].split(". ")[0] or type(error).__name__
