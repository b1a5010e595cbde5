"""A model from adapters and their base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError

from vcr1.errors import UserError
from vcr1.policy.weights.loading import load_encoder, read_weights
from vcr1.policy.weights.saving import save_folder


def merge_adapters(folder: Path, out: Path, files: Mapping[str, str] | None = None) -> None:
    """Write the model that adapters make of their base.

    Args:
        folder: of the adapters, which names their base.
        out: the folder to write; an older one there is replaced.
        files: name -> text of further files.

    Raises:
        UserError: the base is not there, or the adapters are not of it.
    """
    try:
        base = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
        model = read_weights(base, torch.float32, "sdpa")
        adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder}: the adapters cannot be read ({str(error).splitlines()[0]})") from error
    save_folder(adapted.merge_and_unload(), load_encoder(base), out, None, files)
