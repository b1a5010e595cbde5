"""What a model is made of, without its weights; of some models known without the hub too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from vcr1.errors import UserError
from vcr1.policy.families import FAMILIES, family_of
from vcr1.policy.weights.loading import check_weights, freeze_parts, resolve
from vcr1.policy.weights.lora import LoRA, adapt


def carried_shapes() -> dict[str, Path]:
    """Last part of a hub name -> the folder in the package with the published model's ``config.json``."""
    folder = Path(str(resources.files("vcr1"))) / "assets" / "shapes"
    return {path.name: path for path in sorted(folder.iterdir()) if (path / "config.json").is_file()}


def model_config(path: str) -> PreTrainedConfig:
    """The configuration of a model: from its folder, the hub's cache, the package or the hub, in this order.

    Args:
        path: a folder, a hub name, or ``builtin:tiny``.

    Raises:
        UserError: there is none, or it answers no questions about pictures.
    """
    place = resolve(path)
    carried = carried_shapes().get(place.split("/")[-1])
    known = Path(place).is_dir() or isinstance(try_to_load_from_cache(place, "config.json"), str)
    if known or carried is None:
        check_weights(path)
        return AutoConfig.from_pretrained(place)
    return AutoConfig.from_pretrained(carried)


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model of this configuration on the meta device: every module and parameter, no memory.

    Raises:
        UserError: a family without an adapter of its own, whose sizes nobody has worked out.
    """
    if config.model_type not in FAMILIES:
        raise UserError(
            f"nothing is known of what family {config.model_type} needs; known: {', '.join(FAMILIES)}"
        )
    with torch.device("meta"), _quiet():
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    return model


def empty_policy_model(path: str, freeze: list[str], lora: LoRA | None = None) -> PreTrainedModel:
    """Return what :func:`~vcr1.policy.weights.loading.load_policy` would train, on the meta device.

    Raises:
        UserError: as there.
    """
    model = empty_model(model_config(path))
    freeze_parts(model, freeze)
    if lora is not None:
        adapt(model, lora, family_of(model))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says about configurations that are older than itself."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
