"""From a composed Hydra config to objects."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vcr1.checkpoints import run_folder
from vcr1.config.choices import SPLITS, check_choices, conf_dir, expand_choices
from vcr1.data import LoaderSettings, MixtureDataModule, Order, TaskDataModule
from vcr1.distributed import ranks
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder
from vcr1.readers import Annotations, Purpose, reading_for
from vcr1.tasks import Task
from vcr1.video import FrameBudget, GuardedReader, reading_with

log = logging.getLogger(__name__)

VIDEOS = "videos.jsonl"
"""File in a run's folder with the videos that crash, hang or flood their decoder."""

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


def load_config(overrides: Sequence[str] = (), run_dir: str | Path = "runs/notebook") -> DictConfig:
    """Compose the training config as the command line does, for notebooks and scripts.

    Args:
        overrides: as on the command line, e.g. ``["experiment=demo", "trainer.max_steps=10"]``.
        run_dir: the run's folder, which Hydra would choose otherwise.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        paths = [f"run_dir={Path(run_dir).absolute()}"]
        return compose("train", overrides=[*expand_choices(overrides), *paths])


def command_line(job: Callable[[DictConfig], Any], config: str) -> Callable[[], None]:
    """The main function of an entry point: ``task=a+b`` is written as Hydra wants it, then Hydra takes over.

    Args:
        job: what is called with the composed config, once or for each job of a sweep.
        config: name of the primary config.
    """
    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config)(job)

    def main() -> None:
        with exit_on_user_error():
            sys.argv[1:] = expand_choices(sys.argv[1:])
            check_choices(sys.argv[1:])
            ranks.check_launcher(sys.argv[1:])
        run()

    return main


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Within, say what is wrong in a sentence and end with exit status 2, without a stack."""
    try:
        yield
    except UserError as error:
        print(f"vcr1: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OmegaConfBaseException as error:  # such as a value that must be given
        print(f"vcr1: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        sys.exit(2)


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
            text = " ".join(str(error).split())
            moved = next((old for old in MOVED if f"'vcr1.{old}." in text), None)
            hint = "" if moved is None else f"; vcr1.{moved} is vcr1.{MOVED[moved]} now"
            raise UserError(text + hint) from error
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


def selected_tasks(cfg: DictConfig) -> list[str]:
    """Names of the tasks that ``task=`` selected.

    Raises:
        UserError: none.
    """
    names = [str(name) for name in cfg.get("tasks") or {}]
    if not names:
        raise UserError("no task is selected: choose some, such as task=grounding or task=grounding+tracking")
    return names


def read_annotations(cfg: DictConfig) -> dict[str, dict[str, Annotations]]:
    """Read the selected tasks' annotation files and report what was mended or dropped.

    Returns:
        Task's name -> split -> annotations.

    Raises:
        UserError: no source is configured for a task, or files cannot be used; names all of them.
    """
    annotations: dict[str, dict[str, Annotations]] = {}
    problems = []
    for name in selected_tasks(cfg):
        try:
            annotations[name] = _read_splits(cfg, name)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return annotations


def _read_splits(cfg: DictConfig, name: str) -> dict[str, Annotations]:
    """The annotations of one task by split."""
    sources = cfg.data.sources.get(name) or {}
    unknown = set(sources) - {*SPLITS, "weight", "video"}
    if unknown:
        raise UserError(
            f"data.sources.{name} has {', '.join(sorted(unknown))}; it knows train, val, weight and video"
        )
    annotations, reader = {}, video_reader(cfg)
    for split in SPLITS:
        if (source := sources.get(split)) is None:
            continue
        limit = source.get("limit")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise UserError(f"data.sources.{name}.{split}.limit={limit} is no whole number of at least 1")
        try:
            purpose = Purpose.HELD_OUT if split == "val" else Purpose.TRAINING
            with reading_for(purpose), reading_with(reader):
                annotations[split] = build(source)
        except UserError as error:
            raise UserError(f"data.sources.{name}.{split}: {error}") from error
        log.info("%s %s - %s", name, split, annotations[split])
    if not annotations:
        raise UserError(f"data.sources.{name} is not configured: choose a data=... that has {name}")
    return annotations


def build_task(cfg: DictConfig, name: str) -> Task:
    """One of the selected tasks; it is logged under its place in ``tasks``."""
    task: Task = build(cfg.tasks[name])
    task.name = name
    return task


def build_budget(cfg: DictConfig, name: str) -> FrameBudget:
    """How much of a video a task may see: its own ``video``, or that of all data."""
    own = (cfg.data.sources.get(name) or {}).get("video")
    budget: FrameBudget = build(own or cfg.data.video)
    return budget


def build_data(
    cfg: DictConfig, annotations: Mapping[str, Mapping[str, Annotations]], encoder: PromptEncoder
) -> MixtureDataModule:
    """The mixture of the selected tasks' DataModules, with the model's own encoder.

    Raises:
        UserError: a setting that does not exist or fit.
    """
    settings, reader = loader_settings(cfg), video_reader(cfg)
    parts = [
        TaskDataModule(
            build_task(cfg, name), splits, encoder, encoder.grid, build_budget(cfg, name), settings, reader
        )
        for name, splits in annotations.items()
    ]
    return MixtureDataModule(parts, weights_of(cfg, annotations), settings)


def loader_settings(cfg: DictConfig) -> LoaderSettings:
    """How samples become batches.

    Raises:
        UserError: a setting that does not exist or fit.
    """
    with arguments_of("data.loader"):
        loader: Any = OmegaConf.to_container(cfg.data.loader, resolve=True)
        return LoaderSettings(**loader)


def video_reader(cfg: DictConfig) -> GuardedReader:
    """What decodes the videos of a run; in the run's folder it remembers those that must not be met again.

    Raises:
        UserError: a setting of ``data.loader`` that does not exist or fit.
    """
    folder = OmegaConf.select(cfg, "run_dir", throw_on_resolution_failure=False)
    return loader_settings(cfg).reader(None if folder is None else Path(folder) / VIDEOS)


def weights_of(cfg: DictConfig, names: Iterable[str]) -> dict[str, float]:
    """Task's name -> passes over its training samples per epoch."""
    return {name: (cfg.data.sources.get(name) or {}).get("weight", 1.0) for name in names}


def training_order(
    cfg: DictConfig, annotations: Mapping[str, Mapping[str, Annotations]], world_size: int = 1
) -> Order:
    """The order in which a run of so many ranks will see its training samples.

    Raises:
        UserError: a task without training samples, or with too few for one micro-batch; an odd weight.
    """
    for name, splits in annotations.items():
        if "train" not in splits:
            raise UserError(
                f"data.sources.{name}.train is not configured: "
                f"choose a data=... with training samples of {name}"
            )
    settings = loader_settings(cfg)
    return Order(
        sizes={name: len(splits["train"].samples) for name, splits in annotations.items()},
        weights=weights_of(cfg, annotations),
        batch_size=settings.batch_size,
        world_size=world_size,
        shuffle=settings.shuffle,
        seed=settings.seed,
    )


def build_all(group: DictConfig | None) -> list[Any]:
    """The objects of a group of named configs, such as ``callbacks``; null entries are left out."""
    return [build(entry) for entry in (group or {}).values() if entry is not None]
