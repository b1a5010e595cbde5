"""Weights as a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from vcr1.policy.families import FAMILIES
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.policy.weights.finite import check_finite
from vcr1.policy.weights.lora import is_adapted, merged_state
from vcr1.policy.weights.versions import write_older_files


def save_folder(
    model: Any,
    encoder: PromptEncoder,
    folder: Path,
    dtype: torch.dtype | None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a folder that the Auto classes of transformers 5 and 4.57 load; adapters are merged.

    Args:
        model: a Hugging Face model.
        encoder: its encoder.
        folder: an older one there is replaced.
        dtype: floating type of the written weights; None for that of the model.
        files: name -> text of further files, such as a model card.
    """
    state = merged_state(model)
    check_finite(state.items(), f"{folder} is not written")
    if dtype is not None:
        state = cast(state, dtype)
    with _replacing(folder) as scratch:
        bare = without_weights(model).to(dtype or model.dtype)
        bare.save_pretrained(scratch, state_dict=state)
        _finish(scratch, model, encoder, files)


def cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The state in another floating type; names of one tensor, such as tied embeddings, stay names of one."""
    done: dict[tuple[Any, ...], Tensor] = {}
    found = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        found[name] = done.setdefault(key, tensor.to(dtype))
    return found


def save_adapter(
    model: Any,
    encoder: PromptEncoder,
    folder: Path,
    dtype: torch.dtype | None,
    base: str,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write the adapters alone, as peft's ``PeftModel.from_pretrained`` reads them.

    So does transformers' ``load_adapter``, but for the magnitudes of DoRA.

    Args:
        model: a Hugging Face model with adapters.
        encoder: its encoder.
        folder: an older one there is replaced.
        dtype: floating type of the written weights; None for that of the adapters.
        base: the model that they belong to, as the folder will name it.
        files: name -> text of further files, such as a model card.
    """
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = base, True
    # Without the embeddings: whether they were changed, peft would ask the hub.
    state = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    state = {f"base_model.model.{name}": tensor.to(dtype).contiguous() for name, tensor in state.items()}
    check_finite(state.items(), f"{folder} is not written")
    with _replacing(folder) as scratch:
        save_file(state, scratch / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(str(scratch))
        model.generation_config.save_pretrained(str(scratch))
        _finish(scratch, model, encoder, files)


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds a Hugging Face model or adapter, which a newer one may replace."""
    return any((folder / name).is_file() for name in ("config.json", CONFIG_NAME))


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder beside, which takes the place of this one when everything is written, and goes otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    aside = scratch.with_name(f"{scratch.name}-old")
    try:
        yield scratch
        if folder.exists():
            # Aside, not away: a removal takes time in which there would be no model at all.
            folder.rename(aside)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _finish(scratch: Path, model: Any, encoder: PromptEncoder, files: Mapping[str, str] | None) -> None:
    """Write what stands beside the weights."""
    encoder.save(str(scratch))
    if model.config.model_type in FAMILIES:
        write_older_files(scratch, model.config, encoder.processor)
    for name, text in (files or {}).items():
        (scratch / name).write_text(text, encoding="utf-8")
    _readable(scratch)


def without_weights(model: Any) -> Any:
    """Return a model of the same kind without adapters and without memory."""
    with torch.device("meta"):
        bare = type(model)(model.config)
    bare.generation_config = model.generation_config
    return bare


def gathered_copy(model: Any) -> Any | None:
    """Return the whole of a sharded model, in the memory of the first rank's host; None on the others."""
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
