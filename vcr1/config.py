"""From a composed Hydra config to objects."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from vcr1.data import TaskDataModule
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder
from vcr1.tasks import Annotations, Task

log = logging.getLogger(__name__)

SPLITS = ("train", "val")


def conf_dir() -> Path:
    """The folder of the shipped configs: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def load_config(overrides: Sequence[str] = (), run_dir: str | Path = "runs/notebook") -> DictConfig:
    """Compose the training config as the command line does, for notebooks and scripts.

    Args:
        overrides: as on the command line, e.g. ``["experiment=demo", "trainer.max_steps=10"]``.
        run_dir: the run's folder, which Hydra would choose otherwise.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[*overrides, f"run_dir={Path(run_dir).absolute()}"])


def build(node: Any) -> Any:
    """The object that a config node describes by its ``_target_``.

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
            raise UserError(" ".join(str(error).split())) from error
        raise


def is_about_arguments(error: BaseException | None) -> bool:
    """True for the complaint of a call about its arguments, as a typo in an override causes it."""
    words = ("unexpected keyword argument", "missing a required", "required positional", "required keyword")
    return isinstance(error, TypeError) and any(word in str(error) for word in words)


@contextmanager
def arguments_of(group: str) -> Iterator[None]:
    """Where a config group is passed on as arguments: one that does not exist or fit is the user's fault.

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


def selected_task(cfg: DictConfig) -> str:
    """Name of the task that ``task=`` selected.

    Raises:
        UserError: not exactly one.
    """
    names = list(cfg.get("tasks") or {})
    if len(names) != 1:
        raise UserError(f"task={'+'.join(map(str, names)) or 'nothing'}: a run trains exactly one task")
    return str(names[0])


def read_annotations(cfg: DictConfig) -> dict[str, Annotations]:
    """Read the selected task's annotation files and report what was mended or dropped.

    Raises:
        UserError: no source is configured for the task, or a file cannot be used.
    """
    name = selected_task(cfg)
    sources = cfg.data.sources.get(name) or {}
    splits = {split: source for split in SPLITS if (source := sources.get(split)) is not None}
    if "train" not in splits:
        raise UserError(f"data.sources.{name}.train is not configured: choose data=... or set it to a reader")
    annotations = {}
    for split, source in splits.items():
        try:
            annotations[split] = build(source)
        except UserError as error:
            raise UserError(f"data.sources.{name}.{split}: {error}") from error
        log.info("%s %s - %s", name, split, annotations[split])
    return annotations


def build_task(cfg: DictConfig) -> Task:
    """The task that ``task=`` selected."""
    task: Task = build(cfg.tasks[selected_task(cfg)])
    return task


def build_data(
    cfg: DictConfig, annotations: Mapping[str, Annotations], encoder: PromptEncoder
) -> TaskDataModule:
    """The DataModule of the selected task, with the model's own encoder."""
    loader: Any = OmegaConf.to_container(cfg.data.loader, resolve=True)
    with arguments_of("data.loader"):
        return TaskDataModule(
            build_task(cfg), annotations, encoder, encoder.grid, build(cfg.data.video), **loader
        )


def build_all(group: DictConfig | None) -> list[Any]:
    """The objects of a group of named configs, such as ``callbacks``; null entries are left out."""
    return [build(entry) for entry in (group or {}).values() if entry is not None]
