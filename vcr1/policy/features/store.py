"""Tensors on disk within a bound of bytes, for all processes that share a folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger(__name__)

SLACK = 20
"""A run writes one part in so many of the bound before one of its ranks looks through the folder again."""
STALE_SECONDS = 3600.0
"""After which a file that was never finished belongs to a process that died."""

_KEPT = re.compile(r"[0-9a-f]{64}\.safetensors")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]+\.part")


def digest(tensor: Tensor, *facts: object) -> str:
    """Return SHA-256 of a tensor's bytes, type and shape, and of some facts besides, in hexadecimal."""
    found = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape), facts)).encode())
    found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass(slots=True)
class FeatureStore:
    """Key -> tensor, a file each, the least recently used removed where the bound would be passed.

    A store must never stop a run: what cannot be written is not kept, what cannot be read is missed, and
    each is warned of once. Any number of processes may share the folder: files appear whole under their
    names, and a reader whose file another process removes has missed. Only files with the store's own
    names are ever removed.

    Attributes:
        folder: where the files lie; made at the first write.
        limit: bytes that the files may have. The ranks of a run keep to it together; each further run that
            writes to the folder at the same time may pass it by a twentieth.
        damaged: files that were there but could not be used; they are removed.
    """

    folder: Path
    limit: int
    damaged: int = 0
    _reads: bool = True
    _writes: bool = True
    _allowance: int = 0
    """Bytes that this process may write before it looks through the folder again."""

    def get(self, key: str) -> Tensor | None:
        """Return the tensor under a key, on the CPU; None where there is none."""
        if not self._reads:
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._reads = self._writes = False
            self._warn("cannot be read", error)
            return None
        tensor = unpack(key, data)
        # Without the right to write, the folder of another user still serves.
        with contextlib.suppress(OSError):
            if tensor is None:
                path.unlink(missing_ok=True)
            else:
                os.utime(path)
        if tensor is None:
            self.damaged += 1
            if self.damaged == 1:
                log.warning("model.feature_cache: %s was damaged; computing it again", path)
        return tensor

    def put(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor; one that is larger than the bound is not kept."""
        if not self._writes:
            return
        data = pack(key, tensor)
        try:
            if self._has_room(len(data)):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write(key, data)
        except OSError as error:
            self._writes = False
            self._warn("cannot be written to", error)

    def _write(self, key: str, data: bytes) -> None:
        """Put a file in its place, whole or not at all. A process that has done so before is overwritten.

        Raises:
            OSError: it cannot be written.
        """
        scratch = self.folder / f".{key}.{secrets.token_hex(8)}.part"
        try:
            with scratch.open("xb") as file:
                file.write(data)
            scratch.replace(self._path(key))
        except OSError:
            scratch.unlink(missing_ok=True)
            raise

    def _has_room(self, size: int) -> bool:
        """Return whether so many bytes may be written, after removals where they are needed.

        The folder is looked through once for many writes: each look leaves room for what all ranks may
        write until the next.

        Raises:
            OSError: the folder cannot be looked through, or a file not be removed.
        """
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        ranks = torch.distributed.get_world_size() if spread else 1
        if size > self._allowance:
            share = max(size, self.limit // SLACK // ranks)
            if share * ranks > self.limit:
                self._writes = False
                log.warning(
                    "model.feature_cache_gb=%g does not hold the features of one clip per rank (%d bytes); "
                    "going on without keeping more",
                    self.limit / 1e9,
                    size,
                )
                return False
            self._shrink(self.limit - share * ranks)
            self._allowance = share
        self._allowance -= size
        return True

    def _shrink(self, limit: int) -> None:
        """Remove the files that were used the longest ago until the rest has at most so many bytes.

        Raises:
            OSError: the folder cannot be looked through, or a file not be removed.
        """
        if not self.folder.exists():
            return
        files: list[tuple[float, int, Path]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                kept, unfinished = _KEPT.fullmatch(entry.name), _UNFINISHED.fullmatch(entry.name)
                if not kept and not unfinished:
                    continue
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    state = entry.stat()
                    if kept:
                        files.append((state.st_mtime, state.st_size, Path(entry.path)))
                    elif time.time() - state.st_mtime > STALE_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _warn(self, what: str, error: OSError) -> None:
        """Say once that the folder is left out from here on."""
        log.warning(
            "model.feature_cache=%s %s (%s); going on without it", self.folder, what, error.strerror or error
        )


def pack(key: str, tensor: Tensor) -> bytes:
    """Return a file's content: the tensor, and a digest by which damage is noticed."""
    mark = torch.frombuffer(bytearray.fromhex(digest(tensor, key)), dtype=torch.uint8)
    return save({"features": tensor.detach().cpu().contiguous(), "digest": mark})


def unpack(key: str, data: bytes) -> Tensor | None:
    """The tensor out of a file's content; None where that is not what :func:`pack` wrote under the key."""
    try:
        found = load(data)
        tensor, mark = found["features"], found["digest"]
    except (SafetensorError, KeyError, ValueError):
        return None
    whole = mark.dtype == torch.uint8 and bytes(mark.flatten().tolist()).hex() == digest(tensor, key)
    return tensor if whole else None
