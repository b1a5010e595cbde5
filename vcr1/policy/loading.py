"""Weights from a folder, from the hub or from the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from vcr1.errors import UserError
from vcr1.policy.encoding import PromptEncoder
from vcr1.policy.policy import VideoPolicy

FAMILIES = ("qwen2_5_vl",)
PARTS = {
    "vision": "model.visual",
    "merger": "model.visual.merger",
    "language": "model.language_model",
}
BUILTIN = "builtin:"


def resolve(path: str) -> str:
    """The folder or hub name behind ``path``; ``builtin:NAME`` is a model that the package carries.

    Raises:
        UserError: the package carries no such model.
    """
    if not path.startswith(BUILTIN):
        return path
    folder = Path(str(resources.files("vcr1"))) / "assets" / path.removeprefix(BUILTIN)
    if not (folder / "config.json").is_file():
        raise UserError(f"model.path={path}: the package carries no model in {folder}")
    return str(folder)


def check_weights(path: str) -> None:
    """See that a model can be had, without loading it.

    Raises:
        UserError: names what is missing, where it was looked for, and what to do.
    """
    place = resolve(path)
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        looked = (
            f"the folder {place}"
            if Path(place).is_absolute()
            else f"./{place} and the Hugging Face hub and cache"
        )
        raise UserError(
            f"model.path={path}: no model found; looked in {looked}. "
            f"Download it first or set model.path to a local folder ({_first_line(error)})"
        ) from error
    if config.model_type not in FAMILIES:
        raise UserError(
            f"model.path={path}: family {config.model_type} is not supported; known: {', '.join(FAMILIES)}"
        )


def load_encoder(path: str) -> PromptEncoder:
    """The encoder of a model; holds no weights.

    Raises:
        UserError: there is no processor at ``path``.
    """
    try:
        return PromptEncoder(AutoProcessor.from_pretrained(resolve(path)))
    except (OSError, ValueError) as error:
        raise UserError(f"model.path={path}: no processor found there ({_first_line(error)})") from error


def load_policy(
    path: str,
    dtype: str = "bfloat16",
    attention: str = "sdpa",
    gradient_checkpointing: bool = False,
    freeze: list[str] | None = None,
) -> VideoPolicy:
    """A policy from pretrained weights.

    Args:
        path: a folder, a hub name, or ``builtin:tiny``.
        dtype: name of a torch floating type, e.g. ``bfloat16``.
        attention: attention implementation of transformers.
        gradient_checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        freeze: parts that are not trained, out of ``vision``, ``merger``, ``language``.

    Raises:
        UserError: missing weights, an unknown family, dtype or part.
    """
    check_weights(path)
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
        raise UserError(f"model.dtype={dtype} is no floating type of torch; use bfloat16, float16 or float32")
    model = AutoModelForImageTextToText.from_pretrained(
        resolve(path), dtype=torch_dtype, attn_implementation=attention
    )
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    freeze_parts(model, freeze or [])
    return VideoPolicy(model, load_encoder(path))


def freeze_parts(model: Any, parts: list[str]) -> None:
    """Exclude parts of the model from training, by name.

    Raises:
        UserError: an unknown part.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"model.freeze names {part}; known parts: {', '.join(PARTS)}")
        model.get_submodule(PARTS[part]).requires_grad_(False)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
