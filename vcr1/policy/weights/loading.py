"""Weights from a folder, from the hub or from the package."""

from __future__ import annotations

import logging
import socket
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
)

from vcr1.errors import UserError
from vcr1.policy.families import FAMILIES, PARTS, RULE_FIELD, TEXT_AFTER_VIDEO, family_named, family_of
from vcr1.policy.features.cache import FeatureCache
from vcr1.policy.plain import PlainPolicy, warn_of_the_plain_path
from vcr1.policy.policy import VideoPolicy
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.policy.prompts.plain_encoding import PlainEncoder
from vcr1.policy.weights.lora import LoRA, adapt, has_tied_head

log = logging.getLogger(__name__)

ATTENTION = ("sdpa", "eager")
BUILTIN = "builtin:"


def resolve(path: str) -> str:
    """Return the folder or hub name behind ``path``; ``builtin:NAME`` is a model that the package carries.

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
        UserError: names what is missing, where it was looked for, and what to do; or what a model lacks, of a
            family without an adapter, to be a video language model.
    """
    place = resolve(path)
    try:
        if not Path(place).is_dir() and not isinstance(try_to_load_from_cache(place, "config.json"), str):
            _reach_hub()
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path={path}: no model found; looked in the folder {Path(place).absolute()}, in the cache "
            f"{constants.HF_HUB_CACHE} and on the Hugging Face hub ({_first_line(error)}). "
            f"Download it there or set model.path to a local folder"
        ) from error
    if config.model_type not in FAMILIES:
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise UserError(
                f"model.path={path}: family {config.model_type} answers no questions about pictures; "
                f"choose a video language model"
            )
        load_encoder(path)


def load_encoder(path: str) -> PromptEncoder:
    """Return the encoder of a model; holds no weights.

    Raises:
        UserError: there is no processor at ``path``, or one that takes no videos.
    """
    try:
        processor = AutoProcessor.from_pretrained(resolve(path), trust_remote_code=False)
        family = family_named(AutoConfig.from_pretrained(resolve(path), trust_remote_code=False).model_type)
    except (OSError, ValueError, ImportError) as error:  # some want packages of their own
        raise UserError(f"model.path={path}: no processor found there ({_first_line(error)})") from error
    stops = generation_stops(path)
    if family.name in FAMILIES:
        return PromptEncoder(processor, family, stops)
    try:
        return PlainEncoder(processor, family, stops)
    except UserError as error:
        raise UserError(f"model.path={path}: {error}") from error


def generation_stops(path: str) -> list[int]:
    """Return the ids at which a model's generation config stops; none where there is no such file."""
    try:
        stops = GenerationConfig.from_pretrained(resolve(path)).eos_token_id
    except (OSError, ValueError):
        return []
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def load_policy(
    path: str,
    dtype: str = "float32",
    attention: str = "sdpa",
    gradient_checkpointing: bool = False,
    freeze: list[str] | None = None,
    attention_form: str = "auto",
    max_tokens: int | None = None,
    lora: LoRA | None = None,
    feature_cache: str | None = None,
    feature_cache_gb: float = 50.0,
    tree_attention: str = "auto",
    text_after_video: str | None = None,
) -> VideoPolicy:
    """Return a policy from pretrained weights; of a family without an adapter, one that shares no prompts.

    Args:
        path: a folder, a hub name, or ``builtin:tiny``.
        dtype: name of a torch floating type, e.g. ``bfloat16``.
        attention: attention implementation of transformers, ``sdpa`` or ``eager``: one that takes a mask.
        gradient_checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        freeze: parts that are not trained, out of ``vision``, ``merger``, ``language``, ``head``.
        attention_form: how training passes lay groups out, see :class:`~vcr1.policy.policy.VideoPolicy`.
        max_tokens: tokens in a forward of a training pass, see there.
        lora: adapters that are trained in the place of the weights; None for full fine-tuning.
        feature_cache: folder that keeps the features of a frozen vision tower; None computes them each time.
        feature_cache_gb: gigabytes that they may take there.
        tree_attention: what computes the split form, ``auto``, ``sdpa`` or ``flex``, see
            :class:`~vcr1.policy.policy.VideoPolicy`.
        text_after_video: rule for the position of the text behind a video, one of
            :data:`~vcr1.policy.families.TEXT_AFTER_VIDEO`; None for what the checkpoint's ``config.json``
            states, else the published rule.

    Raises:
        UserError: missing weights, a model that takes no videos, an unknown dtype, attention, form, rule or
            part, adapters in a part that is frozen, or a feature cache for a vision tower that is trained.
    """
    check_weights(path)
    torch_dtype = floating_type(dtype, "model.dtype")
    if attention not in ATTENTION:
        raise UserError(f"model.attention={attention}; choose from {', '.join(ATTENTION)}")
    model = read_weights(path, torch_dtype, attention)
    state_rule(model.config, text_after_video)
    if gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"model.gradient_checkpointing=true: a {model.config.model_type} cannot; set it to false"
        )
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    freeze_parts(model, freeze or [])
    encoder = load_encoder(path)
    if lora is not None:
        if lora.vision and "vision" in (freeze or []):
            raise UserError("model.lora.vision=true adapts what model.freeze names: leave one of them out")
        adapt(model, lora, encoder.family, freeze or [])
    if isinstance(encoder, PlainEncoder):
        warn_of_the_plain_path(model)
        return PlainPolicy(model, encoder, attention_form, max_tokens)
    cache = None if feature_cache is None else FeatureCache(feature_cache, feature_cache_gb)
    return VideoPolicy(model, encoder, attention_form, max_tokens, cache, tree_attention)


def read_weights(path: str, dtype: torch.dtype, attention: str) -> Any:
    """Return a Hugging Face model with all of its weights.

    Raises:
        UserError: weights that are missing, damaged or another model's, or an attention that the model lacks.
    """
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            resolve(path),
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (
        OSError,
        SafetensorError,
        UnpicklingError,
    ) as error:  # a folder without weights, a download that broke off
        raise UserError(
            f"model.path={path}: the weights cannot be read ({_first_line(error)}); fetch them again"
        ) from error
    except (ValueError, ImportError) as error:  # a family that has no such attention
        raise UserError(
            f"model.path={path}: no model with model.attention={attention} ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise UserError(
            f"model.path={path}: the weights have other shapes than its config.json says; fetch both again"
        ) from error
    model, report = loaded
    # Transformers draws what a file lacks at random, with no more than a warning.
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"model.path={path}: {len(missing)} of the model's weights are not in its files ({missing[0]}, "
            f"...): another model's, or an incomplete download; fetch them again"
        )
    return model


def state_rule(config: Any, rule: str | None) -> None:
    """Write down in a model's config where the text behind a video goes on, so that exports state it too.

    Args:
        config: a Hugging Face config; families with the library's own positions stay as they are.
        rule: one of ``TEXT_AFTER_VIDEO``; None for what the config states, else the published rule.

    Raises:
        UserError: an unknown rule, or one for a family whose positions are the library's own.
    """
    if rule is not None and rule not in TEXT_AFTER_VIDEO:
        raise UserError(f"model.text_after_video={rule}; choose from {', '.join(TEXT_AFTER_VIDEO)}")
    family = family_named(config.model_type)
    if family.name in FAMILIES:
        setattr(config, RULE_FIELD, rule or family.text_after_video(config))
    elif rule is not None:
        raise UserError(
            f"model.text_after_video={rule}: the positions of a {config.model_type} are those of transformers"
        )


def stated_rule(path: str, rule: str | None = None) -> str:
    """Return the rule under which a model is loaded; loads no weights.

    Args:
        path: a folder, a hub name, or ``builtin:tiny``.
        rule: of the config, see :func:`state_rule`.

    Returns:
        One of ``TEXT_AFTER_VIDEO``; ``transformers`` for a family with the library's own positions.

    Raises:
        UserError: an unknown rule.
    """
    config = AutoConfig.from_pretrained(resolve(path), trust_remote_code=False)
    state_rule(config, rule)
    return str(getattr(config, RULE_FIELD, "transformers"))


def floating_type(name: str, field: str) -> torch.dtype:
    """Return the floating type of torch called ``name``.

    Raises:
        UserError: there is none; names the config's field.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(f"{field}={name} is no floating type of torch; use bfloat16, float16 or float32")
    return dtype


def freeze_parts(model: Any, parts: list[str]) -> None:
    """Exclude parts of the model from training, by name.

    Raises:
        UserError: an unknown part, or one that this family does not have.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"model.freeze names {part}; known parts: {', '.join(PARTS)}")
        for module in family_of(model).parts(model, part):
            module.requires_grad_(False)
    if "head" in parts and "language" not in parts and has_tied_head(model):
        log.warning("model.freeze=[head]: the embeddings are the same weight in this model, and frozen too")


def _reach_hub() -> None:
    """Fail at once where the hub cannot be reached: a download would try again for half a minute.

    Raises:
        OSError: no connection. Behind a proxy nothing is tried.
    """
    address = urlparse(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    if not getproxies():
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=10):
            pass


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
