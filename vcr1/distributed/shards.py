"""Shards on disk as weights and plain values: torch's own reader would run code that an index names."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load

from vcr1.errors import UserError

INDEX = ".metadata"
"""The file of a sharded checkpoint that says which shard holds what."""

_MODULES = (described.__name__, FileSystemReader.__module__)
"""Where the classes of an index are from; of torch itself, its types, layouts and sizes."""


class _IndexUnpickler(pickle.Unpickler):
    """Reads an index, which torch pickles, and makes nothing but descriptions of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of an index.

        Raises:
            UnpicklingError: the index names something else.
        """
        if module in _MODULES and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        found = getattr(torch, name, None) if module == "torch" else None
        if isinstance(found, torch.dtype | torch.layout | torch.memory_format) or found in (
            torch.Size,
            torch.device,
        ):
            return found
        if (module, name) == ("torch.serialization", "_get_layout"):
            return super().find_class(module, name)
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module.split(".")[0] == "pathlib" and name.endswith("Path"):  # where the checkpoint was written
            return PurePosixPath
        raise pickle.UnpicklingError(f"{INDEX} names {module}.{name}, which is no description of a weight")


class ShardReader(FileSystemReader):
    """Reads shards of a folder; an index that names code, or files elsewhere, is refused."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder = path

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index.

        Raises:
            UnpicklingError: it holds something else than descriptions of weights.
            ValueError: it names a file outside of its folder.
        """
        with (self._folder / INDEX).open("rb") as file:
            found = _IndexUnpickler(file).load()
        if not isinstance(found, Metadata):
            raise pickle.UnpicklingError(f"{INDEX} is no index of shards")
        for part in (found.storage_data or {}).values():
            if Path(part.relative_path).name != part.relative_path:
                raise ValueError(f"{INDEX} names {part.relative_path}, which is not in its folder")
        stored = getattr(found, "storage_meta", None) or described.StorageMeta()
        stored.load_id, found.storage_meta = self.load_id, stored
        return found


class _PlainPlanner(DefaultLoadPlanner):
    """Reads what is no tensor as plain values."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Take a plain value."""
        plain = torch.load(value, weights_only=True)
        again = io.BytesIO()
        torch.save(plain, again)
        again.seek(0)
        super().load_bytes(read_item, again)


def load_shards(state: dict[str, Any], folder: Path, alone: bool = False) -> None:
    """Fill a state with what shards hold, in place.

    Args:
        state: tensors, and plain values.
        folder: of the shards.
        alone: without the other ranks.

    Raises:
        UserError: a shard cannot be read, or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single")
            load(state, storage_reader=ShardReader(folder), planner=_PlainPlanner(), no_dist=alone)
    except CheckpointException as error:
        cause = str(next(iter(error.failures.values()))[0]).strip().split("\n")[0]
        raise UserError(f"checkpoint={folder}: a shard cannot be read ({cause.split('. ')[0]})") from error
