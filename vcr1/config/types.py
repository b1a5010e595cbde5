"""Which values a setting may have: from the annotations of whatever the config calls."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

LISTS = (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest value of a number, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"of at least {self.low:.10g}"
        return f"in {self.low:.10g}..{self.high:.10g}"


TINY = 1e-12
Natural = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(1)]
NotNegative = Annotated[float, Bounds(0)]
AboveZero = Annotated[float, Bounds(TINY)]


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value of a config may be given where an annotation stands.

    Args:
        value: plain: null, a number, a text, a list or a mapping.
        hint: an annotation; what it says of objects, which a config describes by a mapping, is not looked at.
    """
    if isinstance(value, float) and math.isnan(value):
        return False
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [one for one in arguments[1:] if isinstance(one, Bounds)]
        return fits(value, arguments[0]) and all(one.low <= value <= one.high for one in bounds)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if hint is None or hint is type(None):
        return value is None
    if isinstance(value, dict):
        if (origin or hint) in MAPPINGS and len(arguments) == 2 and "_target_" not in value:
            return all(fits(one, arguments[1]) for one in value.values())
        return hint not in (bool, int, float, str) and (origin or hint) not in LISTS
    if (origin or hint) in LISTS:
        inner = next((one for one in arguments if one is not ...), Any)
        return isinstance(value, list) and all(fits(one, inner) for one in value)
    return _plain_fits(value, origin or hint)


def _plain_fits(value: Any, hint: Any) -> bool:
    """Return whether a number or text fits a plain type; whatever an unknown annotation means, it may."""
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint is str or (isinstance(hint, type) and issubclass(hint, Path)):
        return isinstance(value, str)
    if isinstance(hint, type) and hint is not object:  # an object, which a mapping describes
        return value is None and hint not in MAPPINGS  # or which the program puts in
    return True


def described(hint: Any) -> str:
    """Return an annotation in words: ``a whole number of at least 1, or null``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [str(one) for one in arguments[1:] if isinstance(one, Bounds) and one.low != TINY]
        kind = described(arguments[0])
        if any(isinstance(one, Bounds) and one.low == TINY for one in arguments[1:]):
            kind = kind.replace("a number", "a number above 0")
        return " ".join([kind, *bounds])
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(map(described, arguments)))
    if origin is Literal:
        return " or ".join(map(str, arguments))
    names: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        type(None): "null",
        None: "null",
    }
    if (origin or hint) in LISTS:
        return "a list of texts" if arguments[:1] == (str,) else "a list"
    if (origin or hint) in MAPPINGS and len(arguments) == 2 and arguments[1] is not Any:
        return f"a mapping to {described(arguments[1])}"
    return names.get(hint, "a mapping" if (origin or hint) in MAPPINGS else "a config with a _target_")


@cache
def parameters_of(target: Callable[..., Any]) -> tuple[Mapping[str, Any], bool]:
    """Return what a class or function takes by name.

    Returns:
        Name -> annotation (``Any`` where there is none), and whether it takes any other name, too.
    """
    found: dict[str, Any] = {}
    calls = [target]
    if inspect.isclass(target):
        calls = [one.__dict__["__init__"] for one in target.__mro__[:-1] if "__init__" in one.__dict__]
    for call in calls:
        try:
            signature = inspect.signature(call)
        except (TypeError, ValueError):  # of C
            return found, True
        hints = _hints_of(call)
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name != "self":
                found.setdefault(name, hints.get(name, Any))
        if not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
            return found, False
        # Our classes hand further arguments to their base; nobody knows what others do with them.
        if inspect.isfunction(target) or not call.__module__.startswith("vcr1."):
            return found, True
    return found, False


def _hints_of(call: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a call, without those that name what only a type checker imports."""
    plain = inspect.unwrap(call)
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {name: one for name, one in inspect.get_annotations(plain).items() if not isinstance(one, str)}


def nearest(name: str, known: Iterable[str], places: Sequence[str] = ()) -> str:
    """Return a hint at what was meant: ``; did you mean trainer.max_steps?``, or nothing.

    Args:
        name: dotted, as it was written.
        known: last names that would be right in the same place.
        places: dotted names of all settings: one that ends like ``name`` may have been meant.
    """
    parent, _, last = name.rpartition(".")
    close = difflib.get_close_matches(last, list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {parent + '.' if parent else ''}{close[0]}?"
    same = [place for place in places if place.rpartition(".")[2] == last] or difflib.get_close_matches(
        name, places, n=1, cutoff=0.75
    )
    return f"; did you mean {' or '.join(same[:3])}?" if same else ""
