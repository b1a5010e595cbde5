"""From a composed Hydra config to objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from vcr1.checkpoints import run_folder
from vcr1.config.choices import conf_dir
from vcr1.config.schema import moved_hint
from vcr1.distributed import ranks
from vcr1.errors import UserError

# For hydra.run.dir and hydra.sweep.dir.
OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def source_task(*, _parent_: DictConfig) -> str:
    """Return the task of a source: the key of the config that holds the split which asks."""
    source = _parent_._get_parent()
    return str(source._key()) if source is not None else ""


# For conf/source: `sources.qa.val` asks for the task qa.
OmegaConf.register_new_resolver("source_task", source_task, replace=True)

# For train.yaml. What is cached is also what the jobs of a sweep are given, on whichever machine they run.
OmegaConf.register_new_resolver("launch", ranks.launch_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("only_first", ranks.only_first, replace=True)
OmegaConf.register_new_resolver("own_name", ranks.own_name, replace=True)


def build(node: Any) -> Any:
    """Return the object that a config node describes by its ``_target_``.

    Raises:
        UserError: what the target itself says, or a target or argument that does not exist.
    """
    try:
        return instantiate(node)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        # A target that is not there, or is not called so; what goes wrong inside of it keeps its stack.
        if str(error).startswith("Error locating target") or is_about_arguments(error.__cause__):
            text = " ".join(str(error).split())
            raise UserError(text + moved_hint(text)) from error
        raise


def check_targets(node: DictConfig, place: str) -> None:
    """See that a config from elsewhere calls nothing but what the package's own configs call.

    Args:
        node: as it would be built.
        place: where it is from, for the message.

    Raises:
        UserError: it names other code.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    for name, target in _targets(plain, place):
        if target not in shipped_targets():
            raise UserError(
                f"{name}._target_={target}: the config of a run may be somebody else's, and this is not "
                f"among the targets of vcr1's own configs; trust=true lets it run, for a run that you trust"
            )


def _targets(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the value of every ``_target_``."""
    if isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{place}[{number}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield place, str(value)
            else:
                yield from _targets(value, f"{place}.{key}")


@cache
def shipped_targets() -> frozenset[str]:
    """Return every ``_target_`` of the package's own configs."""
    files = [OmegaConf.to_container(OmegaConf.load(path)) for path in conf_dir().rglob("*.yaml")]
    return frozenset(target for content in files for _, target in _targets(content, ""))


def is_about_arguments(error: BaseException | None) -> bool:
    """Return True for the complaint of a call about its arguments, as a typo in an override causes it."""
    words = ("unexpected keyword argument", "missing a required", "required positional", "required keyword")
    return isinstance(error, TypeError) and any(word in str(error) for word in words)


@contextmanager
def arguments_of(group: str) -> Iterator[None]:
    """Turn complaints about a config group, passed on as arguments, into the user's faults.

    Raises:
        UserError: names the group and the argument.
    """
    try:
        yield
    except TypeError as error:
        if not is_about_arguments(error):
            raise
        raise UserError(f"{group}: {error}") from error
    except MisconfigurationException as error:  # how Lightning refuses a setting of the Trainer
        raise UserError(f"{group}: {error}") from error


def build_all(group: DictConfig | None) -> list[Any]:
    """Return the objects of a group of named configs, such as ``callbacks``; null entries are left out."""
    return [build(entry) for entry in (group or {}).values() if entry is not None]
