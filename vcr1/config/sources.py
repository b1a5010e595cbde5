"""From the data of a composed config to annotations, tasks, readers and DataModules."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vcr1.config.building import arguments_of, build
from vcr1.config.choices import SPLITS
from vcr1.data import LoaderSettings, MixtureDataModule, Order, TaskDataModule
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder
from vcr1.readers import Annotations, Purpose, reading_for
from vcr1.tasks import Task
from vcr1.video import FrameBudget, GuardedReader, reading_with

log = logging.getLogger(__name__)

VIDEOS = "videos.jsonl"
"""File in a run's folder with the videos that crash, hang or flood their decoder."""


def selected_tasks(cfg: DictConfig) -> list[str]:
    """Return names of the tasks that ``task=`` selected.

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
    """Return the annotations of one task by split."""
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
    """Return one of the selected tasks; it is logged under its place in ``tasks``."""
    task: Task = build(cfg.tasks[name])
    task.name = name
    return task


def build_budget(cfg: DictConfig, name: str) -> FrameBudget:
    """Return how much of a video a task may see: its own ``video``, or that of all data."""
    own = (cfg.data.sources.get(name) or {}).get("video")
    budget: FrameBudget = build(own or cfg.data.video)
    return budget


def build_data(
    cfg: DictConfig, annotations: Mapping[str, Mapping[str, Annotations]], encoder: PromptEncoder
) -> MixtureDataModule:
    """Return the mixture of the selected tasks' DataModules, with the model's own encoder.

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
    """Return how samples become batches.

    Raises:
        UserError: a setting that does not exist or fit.
    """
    with arguments_of("data.loader"):
        loader: Any = OmegaConf.to_container(cfg.data.loader, resolve=True)
        return LoaderSettings(**loader)


def video_reader(cfg: DictConfig) -> GuardedReader:
    """Return the reader of a run's videos; its journal in the run's folder remembers the bad ones.

    Raises:
        UserError: a setting of ``data.loader`` that does not exist or fit.
    """
    folder = OmegaConf.select(cfg, "run_dir", throw_on_resolution_failure=False)
    return loader_settings(cfg).reader(None if folder is None else Path(folder) / VIDEOS)


def weights_of(cfg: DictConfig, names: Iterable[str]) -> dict[str, float]:
    """Return task's name -> passes over its training samples per epoch."""
    return {name: (cfg.data.sources.get(name) or {}).get("weight", 1.0) for name in names}


def training_order(
    cfg: DictConfig, annotations: Mapping[str, Mapping[str, Annotations]], world_size: int = 1
) -> Order:
    """Return the order in which a run of so many ranks will see its training samples.

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
