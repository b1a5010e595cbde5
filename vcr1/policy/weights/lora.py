"""Low-rank adapters: the base stays as it is, and is the reference while they are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from vcr1.errors import UserError
from vcr1.policy.families import Family


@dataclass(frozen=True, slots=True)
class LoRA:
    """Adapters in the place of full fine-tuning (arXiv 2106.09685).

    Attributes:
        rank: of the adapters' two matrices.
        alpha: their product is scaled by ``alpha / rank``.
        dropout: share of an adapter's inputs that is dropped in training. Above 0 the sampler and the trainer
            differ by it.
        targets: the adapted modules, as a regular expression of their whole names or as a list of their last
            names; None for the family's own: all projections of the language model.
        vision: adapt the blocks of the vision tower as well.
        dora: adapt direction and magnitude apart (DoRA, arXiv 2402.09353).
        rslora: scale by ``alpha / sqrt(rank)`` (rsLoRA, arXiv 2312.03732).

    Raises:
        UserError: a value out of its range, named ``model.lora.<field>``.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | Sequence[str] | None = None
    vision: bool = False
    dora: bool = False
    rslora: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "rank": isinstance(self.rank, int) and self.rank >= 1,
            "alpha": self.alpha > 0,
            "dropout": 0 <= self.dropout < 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"model.lora.{name}={getattr(self, name)} is out of range")


def adapt(model: Any, lora: LoRA, family: Family, frozen: Sequence[str] = ()) -> None:
    """Put fresh adapters into a Hugging Face model; from then on only they are trained.

    An adapter begins at zero, so the model computes what it did. Its weights are float32, whatever the base
    has: updates of a small learning rate would be lost in half precision.

    Args:
        model: keeps its class and the names of its modules.
        lora: the adapters.
        family: the model's.
        frozen: parts of the model that get no adapters, whatever the targets say.

    Raises:
        UserError: no module answers to the targets, or one shares its weight with another.
    """
    targets: Any = lora.targets
    if targets is None:
        targets = family.lora_targets
        if lora.vision:
            targets = f"{targets}|{family.lora_vision_targets}"
    elif not isinstance(targets, str):
        targets = list(targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor, which need not be whole
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        exclude_modules=_modules_of(model, family, frozen) or None,
    )
    try:
        model.add_adapter(config)
    except ValueError as error:
        raise UserError(f"model.lora.targets={lora.targets}: {str(error).splitlines()[0]}") from error
    _refuse_tied(model, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def has_tied_head(model: Any) -> bool:
    """Return whether a model's embeddings and head are one weight."""
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = [getattr(getattr(one, "base_layer", one), "weight", None) for one in modules]
    return weights[0] is not None and weights[0] is weights[1]


def _modules_of(model: nn.Module, family: Family, parts: Sequence[str]) -> list[str]:
    """Return the names of all modules within some parts of a model."""
    inside = {id(one) for part in parts for top in family.parts(model, part) for one in top.modules()}
    return [name for name, module in model.named_modules() if id(module) in inside]


def _refuse_tied(model: Any, lora: LoRA) -> None:
    """See that no adapter changes one of two weights that are the same in the base.

    Raises:
        UserError: one does; merged, the model would need both.
    """
    if not has_tied_head(model):
        return
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(module, LoraLayer):
            name = next(name for name, one in model.named_modules() if one is module)
            raise UserError(
                f"model.lora.targets={lora.targets} adapts {name}: embeddings and head of this model are one "
                f"weight (tie_word_embeddings), and an export could not hold two; leave it out"
            )


def is_adapted(model: nn.Module) -> bool:
    """Return whether a model has adapters."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The base for a while.

    By the layers' own switch alone: peft's ``enable_adapters`` also turns gradients off and on, which a graph
    that exists already, and a sharded parameter, would notice.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the model without adapters that computes the same; the model stays as it is.

    Returns:
        Name, as in a model without adapters, -> weight, in the base's dtype. What has no adapter is not
        copied.
    """
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        layer: Any = module
        weight = layer.get_base_layer().weight
        kept = weight.data
        weight.data = (
            kept.clone()
        )  # a merge that is undone leaves rounding behind, so never in the weight itself
        layer.merge()
        state[f"{name}.weight"] = weight.data.clone()
        layer.unmerge()
        weight.data = kept
    return state
