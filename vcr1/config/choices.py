"""The options of the config groups, and how they are chosen on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from vcr1.errors import UserError

SPLITS = ("train", "val")
MIXED_GROUPS = ("task", "data", "benchmark")
"""Config groups of which several options may be chosen, joined by a plus sign."""


def conf_dir() -> Path:
    """Return the folder of the shipped configs: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def expand_choices(overrides: Sequence[str]) -> list[str]:
    """Write choices such as ``task=a+b`` as Hydra wants them, ``task=[a,b]``; also within a sweep.

    ``task=a,b,a+b`` becomes ``task=[a],[b],[a,b]``, and ``clues=2`` ``clues.rounds=2``. Other overrides stay
    as they are.

    Raises:
        UserError: data sets that are joined although they have the same split of the same task, or a key that
            has another name now.
    """
    return [_expand(override) for override in overrides]


_MIXTURE = r"\w+(?:\+\w+)*"
_CHOICE = re.compile(rf"({'|'.join(MIXED_GROUPS)})=({_MIXTURE}(?:,{_MIXTURE})*)")
_ROUNDS = re.compile(r"clues=(\d+(?:,\d+)*)")


_RENAMED = {"ckpt": "checkpoint=", "weights_only": "trust=true, in the place of weights_only=false,"}
_OBJECTIVE = re.compile(
    r"\+{0,2}algorithm\.(advantage|ratio|surrogate|clip_low|clip_high|average|kl|kl_place|kl_weight)="
)


def _expand(override: str) -> str:
    if match := _OBJECTIVE.match(override):
        raise UserError(f"algorithm.{match[1]} is algorithm.objective.{match[1]} now")
    if (renamed := _RENAMED.get(override.lstrip("+").split("=")[0])) is not None:
        raise UserError(f"{override.split('=')[0]}= is {renamed} now")
    if match := _ROUNDS.fullmatch(override):
        return f"clues.rounds={match[1]}"
    if "+" not in override or (match := _CHOICE.fullmatch(override)) is None:
        return override
    if match[1] == "data":
        for mixture in match[2].split(","):
            _check_data_sets(mixture.split("+"))
    mixtures = ("[" + mixture.replace("+", ",") + "]" for mixture in match[2].split(","))
    return f"{match[1]}={','.join(mixtures)}"


def _check_data_sets(names: Sequence[str]) -> None:
    """See that shipped data sets can be joined: of two with the same split of a task, Hydra would keep one.

    Raises:
        UserError: they cannot.
    """
    found: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(names):
        path = conf_dir() / "data" / f"{name}.yaml"
        config: Any = OmegaConf.load(path) if path.is_file() else {}
        sources = config.get("sources", {})
        for place in ((task, split) for task in sources for split in sources[task] if split in SPLITS):
            other = found.setdefault(place, name)
            if other != name:
                raise UserError(
                    f"data={'+'.join(names)}: both {other} and {name} have sources.{'.'.join(place)}; choose "
                    f"one of them, or join their readers in a config with vcr1.readers.concatenate"
                )


def check_choices(arguments: Sequence[str]) -> None:
    """See that the options exist that a command line chooses of the config groups.

    Args:
        arguments: as Hydra gets them: overrides and flags, of which ``--config-dir`` adds options.

    Raises:
        UserError: one does not; names those that do.
    """
    if any("hydra.searchpath" in one or one.startswith(("--config-path", "-cp")) for one in arguments):
        return  # options may lie anywhere
    places = [conf_dir(), *config_dirs(arguments)]
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException:  # Hydra will say what it does not understand
            continue
        group = str(override.key_or_group)
        folders = [place / group for place in places if (place / group).is_dir()]
        if override.is_delete() or not folders or group.startswith("hydra"):
            continue
        known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
        for name in _chosen(override.value()):
            if name.removesuffix(".yaml") not in known:
                raise UserError(f"{group}={name}: there is no such {group}; choose from {', '.join(known)}")


def config_dirs(arguments: Sequence[str]) -> Iterator[Path]:
    """Yield the folders of one's own configs."""
    for flag, value in zip_longest(arguments, arguments[1:], fillvalue=""):
        if flag in ("--config-dir", "-cd"):
            yield Path(value)
        elif flag.startswith("--config-dir="):
            yield Path(flag.removeprefix("--config-dir="))


def _chosen(value: Any) -> Iterator[str]:
    """Yield the names in the value of an override: one, a list, or a sweep over either."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    if isinstance(value, list):
        for one in value:
            yield from _chosen(one)
    elif isinstance(value, str | int) and value != "":
        yield str(value)
