"""Which weights a name stands for: a model's folder or name, a checkpoint of a training, or adapters.

A checkpoint is exported once, into ``exports`` in its run's folder, and used from there; adapters are merged
into ``merged`` in their folder. What lies there can be deleted at any time: it is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict
from peft.utils import CONFIG_NAME

from vcr1.checkpoints.opening import find_checkpoint, open_checkpoint
from vcr1.distributed.shards import INDEX
from vcr1.errors import UserError
from vcr1.export import folder_of_run, read_run, write_export
from vcr1.policy import check_weights
from vcr1.policy.weights.merging import merge_adapters

log = logging.getLogger(__name__)

EXPORTS = "exports"
"""The folder, in that of a run, of what was exported without being asked for by `vcr1.export`."""
ORIGIN = "checkpoint.json"
"""The file in an export that says which checkpoint it was made from."""
MERGED = "merged"
"""The folder, in that of adapters, with the model that they make of their base."""
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a model, which may have to be exported first.

    Attributes:
        path: as ``model.path``: a folder, a hub name or a packaged model; None where the model has none.
        checkpoint: what the folder is exported from, a checkpoint or the folder of adapters; None where it is
            there as it is.
        field: the key of the config that names them.
    """

    path: str | None
    checkpoint: Path | None = None
    field: str = "checkpoint"

    def check(self) -> None:
        """See that the model can be had, without loading or exporting it.

        Raises:
            UserError: it cannot.
        """
        if self.checkpoint is None and self.path is not None:
            check_weights(self.path)

    def ready(self) -> dict[str, Any] | None:
        """Export the checkpoint, if it is one and has not been; of several processes the first does it.

        Returns:
            ``path``, ``step`` and ``digest`` (SHA-256) of the checkpoint; None where there is none.

        Raises:
            UserError: it cannot be exported.
        """
        if self.checkpoint is None:
            return None
        folder = Path(str(self.path))
        try:
            if not (folder / ORIGIN).is_file():
                with _alone(folder.parent):
                    _export(self.checkpoint, folder)
        except (UserError, OSError) as error:
            raise UserError(
                f"{self.field}={self.checkpoint} cannot be exported: "
                f"{_without_field(error, self.checkpoint)}; python -m vcr1.export has further options "
                f"(base=, config=, out=, trust=)"
            ) from error
        origin: dict[str, Any] = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        return origin


def chosen_weights(cfg: DictConfig) -> Weights:
    """The weights that ``checkpoint`` names, or else the model's own; ``model.path`` is where they will be.

    Raises:
        UserError: what is named is there, but holds no weights.
    """
    if cfg.checkpoint is None:
        return Weights(str(cfg.model.path) if "path" in cfg.model else None)
    found = find_weights(str(cfg.checkpoint))
    with open_dict(cfg):
        cfg.model.path = found.path
    return found


def starting_weights(cfg: DictConfig) -> Weights:
    """Return the weights that a training begins with, from what ``model.path`` names.

    Args:
        cfg: ``model.path`` is where they will be.

    Raises:
        UserError: what is named is there, but holds no weights.
    """
    if "path" not in cfg.model:
        return Weights(None)
    found = find_weights(str(cfg.model.path), "model.path")
    cfg.model.path = found.path
    return found


def find_weights(name: str, field: str = "checkpoint") -> Weights:
    """Return the weights of a name; nothing is loaded or written.

    Args:
        name: a Hugging Face folder or hub name, ``builtin:tiny``, a checkpoint (a file or a folder of
            shards), a run's folder: its export, or its last checkpoint where it has none; or the folder of
            adapters, as peft and `vcr1.export` write them.
        field: the key of the config that names them.

    Raises:
        UserError: a file or folder without any of these, or a checkpoint that cannot be used.
    """
    path = Path(name)
    if not os.path.exists(name) and not name.endswith(".ckpt"):  # noqa: PTH110 - False for impossible names
        return Weights(name, None, field)
    for folder in (path, path / "huggingface"):
        if (folder / "config.json").is_file():
            return Weights(str(folder), None, field)
        if (folder / CONFIG_NAME).is_file():
            state = _state_of(sorted(folder.glob("adapter_*")))
            return Weights(str(folder / MERGED / state), folder.resolve(), field)
    try:
        checkpoint = find_checkpoint(path).resolve()
        open_checkpoint(checkpoint)
        run = read_run(checkpoint)
    except UserError as error:
        holds = "" if path.is_file() or (path / INDEX).is_file() else "no Hugging Face model there, and "
        raise UserError(f"{field}={name}: {holds}{_without_field(error, path)}") from error
    folder = (
        folder_of_run(checkpoint)
        / EXPORTS
        / f"{checkpoint.stem}-{_state_of(_parts(checkpoint), run.source.read_bytes())}"
    )
    return Weights(str(folder), checkpoint, field)


def _without_field(error: Exception, path: Path) -> str:
    """Return what an error says, without the name that the path has on the command line of an export."""
    return str(error).removeprefix(f"checkpoint={path}: ").removeprefix(f"checkpoint={path.resolve()}: ")


def _export(checkpoint: Path, folder: Path) -> None:
    """Write the folder, unless it is there, whole or not at all, and the checkpoint's digest with it."""
    if (folder / ORIGIN).is_file():  # another process was faster
        return
    step: int | None
    write: Callable[..., object]
    if (checkpoint / CONFIG_NAME).is_file():
        step, write = None, merge_adapters
    else:
        step, write = open_checkpoint(checkpoint).step, write_export
    origin = {"path": str(checkpoint), "step": step, "digest": checkpoint_digest(checkpoint)}
    write(checkpoint, folder, files={ORIGIN: json.dumps(origin, indent=2) + "\n"})
    log.info("exported %s to %s; later runs take it from there", checkpoint, folder)


def checkpoint_digest(path: Path) -> str:
    """Return SHA-256 of a checkpoint: of the file, or of the names and digests of a folder's files."""
    if path.is_file():
        return _file_digest(path)
    lines = "".join(f"{_file_digest(part)}  {part.relative_to(path)}\n" for part in _parts(path))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(path: Path) -> list[Path]:
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


def _state_of(parts: Sequence[Path], more: bytes = b"") -> str:
    """Return short digest of what tells weights from changed ones, without reading them."""
    found = hashlib.sha256(more)
    for part in parts:
        facts = part.stat()
        found.update(f"{part.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return found.hexdigest()[:12]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the system lets the others in when one ends in whatever way."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        with suppress(OSError):  # no locks on this file system: several may write the same, each whole
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
