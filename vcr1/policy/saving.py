"""Weights as a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from vcr1.policy.encoding import PromptEncoder
from vcr1.policy.lora import is_adapted, merged_state


def save_folder(model: Any, encoder: PromptEncoder, folder: Path, dtype: torch.dtype | None) -> None:
    """Write a folder that the Auto classes load; adapters are merged.

    Args:
        model: a Hugging Face model.
        encoder: its encoder.
        folder: an older one there is replaced.
        dtype: floating type of the written weights; None for that of the model.
    """
    state = merged_state(model)
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    aside = scratch.with_name(f"{scratch.name}-old")
    try:
        bare = without_weights(model).to(dtype or model.dtype)
        bare.save_pretrained(scratch, state_dict=state)
        encoder.save(str(scratch))
        _readable(scratch)
        if folder.exists():
            # Aside, not away: a removal takes time in which there would be no model at all.
            folder.rename(aside)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)


def without_weights(model: Any) -> Any:
    """A model of the same kind without adapters and without memory."""
    with torch.device("meta"):
        bare = type(model)(model.config)
    bare.generation_config = model.generation_config
    return bare


def gathered_copy(model: Any) -> Any | None:
    """The whole of a sharded model, in the memory of the first rank's host; None on the others."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if dist.get_rank() != 0:
        return None
    whole = without_weights(model)
    if is_adapted(model):
        with torch.device("meta"):
            whole.add_adapter(model.peft_config["default"])
    whole.load_state_dict(state, strict=False, assign=True)
    whole.tie_weights()
    return whole


def _readable(folder: Path) -> None:
    """Give a scratch folder and its files the permissions that the user's umask means them to have."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)
