"""The schema of a config: every key is known, every value has its type, before anything heavy starts.

What a config calls by ``_target_`` states names and types of its arguments itself, so a task, a reward or a
callback of one's own is checked like the package's. `vcr1.config.settings` states the rest.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vcr1.config.settings import CALLED, OPEN, REFUSED, SETTINGS, TIGHTER
from vcr1.config.types import described, fits, nearest, parameters_of
from vcr1.errors import UserError


def check_config(cfg: DictConfig) -> None:
    """Compare a composed config with what it calls.

    Raises:
        UserError: everything that does not fit, a line for each.
    """
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    if problems := list(_problems(plain, raw, "")):
        raise UserError("\n".join(problems))


def _problems(node: Mapping[str, Any], raw: Any, place: str) -> Iterator[str]:
    """Yield what is wrong in a node, and below.

    Args:
        node: plain, with its interpolations resolved.
        raw: the same with its interpolations.
        place: its dotted name; empty for the whole config.
    """
    known = known_keys(node, place)
    if isinstance(known, str):
        yield known
        return
    for key, value in node.items():
        name = f"{place}.{key}" if place else str(key)
        written = raw.get(key) if isinstance(raw, dict) else None
        if str(key).startswith("_") or value == "???" or _is_checked_elsewhere(written):
            continue
        if (reason := REFUSED.get(name)) is not None and value is not None:
            yield f"{name}={_short(value)}: {reason}"
        elif known is not None and key not in known:
            yield f"{name}={_short(value)}: there is no such setting{nearest(name, known)}"
        else:
            hint = TIGHTER.get(name, Any if known is None else known[key])
            yield from _value_problems(name, value, written, hint)


def _is_checked_elsewhere(written: Any) -> bool:
    """Return whether a value is that of another setting, which is checked there: ``${seed}``."""
    if not isinstance(written, str) or not (match := re.fullmatch(r"\$\{([\w.]+)\}", written)):
        return False
    return match[1] in SETTINGS or match[1].split(".")[0] in CALLED


def _value_problems(name: str, value: Any, written: Any, hint: Any) -> Iterator[str]:
    """Yield what is wrong with a value: its type, or what is in it."""
    if not fits(value, hint):
        yield f"{name}={_short(value)} is not {described(hint)}"
    elif isinstance(value, dict):
        yield from _problems(value, written, name)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            if isinstance(entry, dict):
                yield from _problems(entry, None, f"{name}[{number}]")


def known_keys(node: Mapping[str, Any], place: str) -> Mapping[str, Any] | str | None:
    """Return the keys that a node may have.

    Args:
        node: plain.
        place: its dotted name; empty for the whole config.

    Returns:
        Key -> annotation; None where any key may be; or a sentence where the node's target is not there.
    """
    if "_target_" in node:
        try:
            found, is_open = parameters_of(target_of(str(node["_target_"]), place))
        except UserError as error:
            return str(error)
        return None if is_open else found
    if _is_open(place):
        return None
    depth = place.count(".") + 1 if place else 0
    names = [name.split(".") for name in (*SETTINGS, *OPEN, *CALLED)]
    inside = [parts for parts in names if len(parts) > depth and _matches(place, ".".join(parts[:depth]))]
    if not inside:
        return None
    return {
        parts[depth]: SETTINGS.get(".".join(parts), Any) if len(parts) == depth + 1 else Any
        for parts in sorted(inside, key=len, reverse=True)
    }


def _is_open(place: str) -> bool:
    return any(_matches(place, name) for name in OPEN) or place.startswith("own.")


def _matches(place: str, pattern: str) -> bool:
    """Return whether a dotted name is that of a pattern, in which ``*`` is any name."""
    return len(place.split(".")) == len(pattern.split(".")) and all(
        one in (other, "*") for one, other in zip(pattern.split("."), place.split("."), strict=True)
    )


def target_of(name: str, place: str) -> Callable[..., Any]:
    """Return what a ``_target_`` names.

    Raises:
        UserError: there is no such thing; says how far the name can be followed.
    """
    try:
        found: Callable[..., Any] = _located(name)
    except Exception as error:  # whatever importing somebody's module raises
        said = f"{place}._target_={name}" if place else f"_target_={name}"
        text = str(error).strip().split("\n")[0]
        raise UserError(
            f"{said} cannot be loaded ({type(error).__name__}: {text}){moved_hint(name)}. Modules "
            f"of one's own are looked for in the current folder and in PYTHONPATH"
        ) from error
    return found


def moved_hint(text: str) -> str:
    """Return where a module is now that a text names by its older place; empty where it names none."""
    moved = next((old for old in MOVED if re.search(rf"\bvcr1\.{re.escape(old)}\.", text)), None)
    return "" if moved is None else f"; vcr1.{moved} is vcr1.{MOVED[moved]} now"


def _located(name: str) -> Any:
    """Return the object of a dotted name: import as many parts as are modules, then take attributes.

    Raises:
        ImportError, AttributeError: there is none; or what the import of a module raises.
    """
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if count == 1 or error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ImportError(f"no module named {name!r}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


MOVED = {
    "rewards": "scoring.rewards",
    "metrics": "scoring.metrics",
    "geometry": "scoring.geometry",
    "parsing": "scoring.parsing",
    "judges": "scoring.judges",
    "callbacks": "reporting.callbacks",
    "loggers": "reporting.loggers",
    "sharded": "distributed.sharded",
    "clues": "inference.clues",
    "prediction": "inference",
    **{f"policy.{name}": f"policy.weights.{name}" for name in ("loading", "lora", "saving", "sharding")},
    **{f"policy.{name}": f"policy.generation.{name}" for name in ("rollout", "decoding", "sampling")},
    "policy.encoding": "policy.prompts.encoding",
}
"""Modules that configs may name -> where they are now, both without ``vcr1.``."""
