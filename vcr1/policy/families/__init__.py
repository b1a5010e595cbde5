"""Families of models that share prompts. A new one is a module here that defines ``FAMILY``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from vcr1.policy.families.base import PARTS, RULE_FIELD, TEXT_AFTER_VIDEO, Family, VideoClock
from vcr1.policy.families.other import OtherFamily

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY for module in _MODULES if hasattr(module, "FAMILY")
}
"""``model_type`` in a model's configuration -> its family."""


def family_named(model_type: str) -> Family:
    """Return one of :data:`FAMILIES`, or an :class:`OtherFamily` of that name."""
    return FAMILIES.get(model_type) or OtherFamily(model_type)


def family_of(model: Any) -> Family:
    """Return the family of a Hugging Face model."""
    return family_named(model.config.model_type)


__all__ = [
    "FAMILIES",
    "PARTS",
    "RULE_FIELD",
    "TEXT_AFTER_VIDEO",
    "Family",
    "OtherFamily",
    "VideoClock",
    "family_named",
    "family_of",
]
