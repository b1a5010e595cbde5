"""Video features of a frozen vision tower, kept on disk between epochs and runs."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.distributed.tensor import DTensor

from vcr1.errors import UserError
from vcr1.policy.families import family_of
from vcr1.policy.features.store import FeatureStore, digest
from vcr1.policy.prompts.layout import video_features
from vcr1.records import PromptInputs


class FeatureCache:
    """Computes a prompt's video features, or reads what was computed before: the same to the bit.

    A prompt's videos go through the tower by themselves, so that what is kept does not depend on what
    else was in the batch. The key is a digest of all that decides the result: the pixels and their grid, the
    tower's weights and configuration, the precision, the device and the libraries that compute. So a file
    never has to be looked at again: other frames, another size or other weights have another key.

    Args:
        folder: where the features lie, safetensors files of about ``tokens x width x bytes`` each; processes
            and runs may share it.
        gigabytes: that the files may have (10^9 bytes); the least recently used go first.

    Attributes:
        hits: prompts whose features were read.
        misses: prompts whose features were computed.
        store: the files.

    Raises:
        UserError: a bound that is no positive number.
    """

    def __init__(self, folder: str | Path, gigabytes: float = 50.0) -> None:
        if not isinstance(gigabytes, int | float) or not 0 < gigabytes < math.inf:
            raise UserError(f"model.feature_cache_gb={gigabytes} is no positive number of gigabytes")
        self.store = FeatureStore(Path(folder).expanduser(), int(gigabytes * 1e9))
        self.hits = self.misses = 0
        self._seen: object = None
        self._tower = ""

    def __str__(self) -> str:
        damaged = f", {self.store.damaged} damaged" if self.store.damaged else ""
        return f"feature cache {self.store.folder}: {self.hits} read, {self.misses} computed{damaged}"

    def check(self, model: Any) -> None:
        """See that the tower's features are the same in every epoch.

        Raises:
            UserError: the tower is trained, or its weights are spread over the ranks: one that reads its
                features would leave the others waiting for its part of the weights.
        """
        parameters = list(family_of(model).tower(model).parameters())
        here = f"model.feature_cache={self.store.folder}"
        if any(parameter.requires_grad for parameter in parameters):
            raise UserError(
                f"{here} keeps the features of a vision tower that does not change, but this one is trained: "
                f"set model.freeze=[vision], or model.feature_cache=null"
            )
        if any(isinstance(parameter, DTensor) for parameter in parameters):
            raise UserError(
                f"{here} needs the whole vision tower on every rank, but the strategy shards it: "
                f"set model.feature_cache=null, or strategy=ddp"
            )

    def features(self, model: Any, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """Return what :func:`~vcr1.policy.prompts.layout.video_features` returns, without a graph.

        Args:
            model: the model; that its tower is the same as before is seen at each call.
            inputs: P prompt inputs, on the model's device.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(model)
        return [self._one(model, item) if "video_grid_thw" in item else None for item in inputs]

    def _one(self, model: Any, item: PromptInputs) -> Tensor:
        """Return features ``[tokens, (1 + K)·D]`` of one prompt's videos."""
        pixels = item["pixel_values_videos"]
        key = digest(
            pixels, item["video_grid_thw"].tolist(), self._fingerprint(model), circumstances(pixels.device)
        )
        kept = self.store.get(key)
        if kept is not None:
            self.hits += 1
            return kept.to(pixels.device)
        self.misses += 1
        with torch.no_grad():
            (computed,) = video_features(model, [item])
        assert computed is not None  # the prompt has a video
        self.store.put(key, computed)
        return computed

    def _fingerprint(self, model: Any) -> str:
        """Return digest of the tower; computed again only where a weight was written to or replaced."""
        tensors = family_of(model).tower(model).state_dict(keep_vars=True).values()
        seen = [(tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device) for tensor in tensors]
        if seen != self._seen:
            self._tower = tower_fingerprint(model)
            self._seen = seen
        return self._tower


def tower_fingerprint(model: Any) -> str:
    """Return SHA-256 over weights, configuration and family of a model's vision tower, in hexadecimal."""
    visual: Any = family_of(model).tower(model)
    config = visual.config.to_dict() | {"attention": visual.config._attn_implementation}
    facts = {name: value for name, value in config.items() if name not in ("transformers_version", "dtype")}
    found = hashlib.sha256(json.dumps([model.config.model_type, facts], sort_keys=True, default=str).encode())
    for name, tensor in visual.state_dict().items():
        found.update(digest(tensor, name).encode())
    return found.hexdigest()


def circumstances(device: torch.device) -> tuple[str, ...]:
    """Return what else decides a result's last bits: precision, kind of device, libraries."""
    autocast = torch.is_autocast_enabled(device.type)
    return (
        str(torch.get_autocast_dtype(device.type)) if autocast else "",
        torch.get_float32_matmul_precision(),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch.__version__,
        transformers.__version__,
    )
