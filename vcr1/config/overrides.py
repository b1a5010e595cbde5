"""Settings of a command line: each names something that there is, before Hydra composes anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vcr1.config.choices import conf_dir, config_dirs
from vcr1.config.schema import known_keys
from vcr1.config.types import nearest
from vcr1.errors import UserError

ELSEWHERE = ("--config-path", "-cp", "--config-name", "-cn", "--help", "-h", "--hydra-help", "--info", "-i")
"""Flags with which another config is composed, or none."""


def check_overrides(program: str, arguments: Sequence[str]) -> list[str]:
    """See that the settings of a command line exist.

    Args:
        program: name of the primary config.
        arguments: as Hydra gets them.

    Returns:
        The arguments. What the called object takes and no config names, as ``trainer.limit_train_batches=2``,
        has got the plus sign that Hydra asks for.

    Raises:
        UserError: a setting that there is not; names the nearest one.
    """
    if any(one.split("=")[0] in ELSEWHERE or "hydra.searchpath" in one for one in arguments):
        return list(arguments)
    parsed = [(one, _parsed(one)) for one in arguments]
    groups = _groups([conf_dir(), *config_dirs(arguments)])
    try:
        config = _composed(program, arguments, [one for _, one in parsed if one is not None], groups)
    except (HydraException, OmegaConfBaseException):  # Hydra will say what is wrong with the choices
        return list(arguments)
    places = sorted({*_places(config), *groups})
    return [
        text if one is None or not _is_setting(one, groups) else _checked(text, one, config, places)
        for text, one in parsed
    ]


def _parsed(argument: str) -> Override | None:
    """Return an override; None for a flag, and for what Hydra itself will refuse."""
    if argument.startswith("-") or "=" not in argument:
        return None
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _groups(folders: Sequence[Path]) -> set[str]:
    return {
        str(path.relative_to(folder)) for folder in folders for path in folder.glob("**/") if path != folder
    }


def _is_setting(override: Override, groups: set[str]) -> bool:
    """Return whether an override sets a value of ours: no option of a group, nothing of Hydra's own."""
    name = str(override.key_or_group)
    return not (override.is_delete() or name in groups or name.split(".")[0] == "hydra" or "/" in name)


def _composed(
    program: str, arguments: Sequence[str], overrides: Sequence[Override], groups: set[str]
) -> dict[str, Any]:
    """Return the config with the options that are chosen, the first ones of a sweep, without any setting."""
    choices = [_first_choice(one) for one in overrides if str(one.key_or_group) in groups]
    folders = [folder.absolute().as_uri() for folder in config_dirs(arguments)]
    path = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose(program, overrides=[*choices, *path]), resolve=False)
    return dict(plain)


def _first_choice(override: Override) -> str:
    """Return the choice of an option as text; of a sweep, its first."""
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        value = value.list[0]
    line = override.input_line or ""
    signs = line[: len(line) - len(line.lstrip("+~"))]
    chosen = "null" if value is None else str(value)
    if isinstance(value, list):
        chosen = f"[{','.join(map(str, value))}]"
    return f"{signs}{override.get_key_element().lstrip('+')}={chosen}"


def _places(node: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings and nodes."""
    for key, value in node.items() if isinstance(node, dict) else ():
        name = f"{place}.{key}" if place else str(key)
        yield name
        yield from _places(value, name)


def _checked(text: str, override: Override, config: dict[str, Any], places: Sequence[str]) -> str:
    """Return an override as Hydra takes it.

    Raises:
        UserError: it sets nothing that there is.
    """
    name = str(override.key_or_group)
    if name in places:
        return text
    *above, last = name.split(".")
    node: Any = config
    for number, part in enumerate(above):
        place = ".".join(above[:number])
        if part not in node:
            if known_keys(node, place) is None:
                return text  # an entry of a group that takes any name
            wrong = f"{place}.{part}" if place else part
            raise UserError(f"{text}: there is no {wrong}{nearest(wrong, node, places)}")
        node = node[part]
        if not isinstance(node, dict):
            place = ".".join(above[: number + 1])
            raise UserError(f"{text}: {place} is {'null' if node is None else node} and has no settings")
    known = known_keys(node, ".".join(above))
    if isinstance(known, str) or known is None:
        return text
    if last in known:
        return text if override.is_add() or override.is_force_add() else f"+{text}"
    raise UserError(f"{text}: there is no setting {name}{nearest(name, known, places)}")
