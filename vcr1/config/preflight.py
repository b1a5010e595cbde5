"""What can be known before anything heavy starts: devices, annotations, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from vcr1.checkpoints import CONTINUE
from vcr1.config.building import build
from vcr1.config.sources import build_budget, build_task, read_annotations, training_order
from vcr1.distributed.ranks import check_launch
from vcr1.distributed.sharded import replica_groups
from vcr1.errors import UserError
from vcr1.module.schedule import check_optimizer
from vcr1.policy import check_weights
from vcr1.readers import Annotations
from vcr1.records import Sample
from vcr1.tasks import Task

HINT = "To see everything run without data, weights or a GPU: python -m vcr1.train experiment=demo"


def preflight(
    cfg: DictConfig, check_model: Callable[[], object] | None = None
) -> dict[str, dict[str, Annotations]]:
    """Check everything that a run needs, and read its annotations on the way.

    Args:
        cfg: of the run.
        check_model: sees that the model can be had; None looks for ``model.path``.

    Returns:
        Task's name -> split -> annotations.

    Raises:
        UserError: all that is missing, in one message.
    """
    annotations: dict[str, dict[str, Annotations]] = {}
    names = [str(name) for name in cfg.get("tasks") or {}]
    checks: list[Callable[[], object]] = [
        lambda: check_devices(cfg.trainer.accelerator, cfg.trainer.devices),
        lambda: check_launch(cfg.trainer.devices, cfg.trainer.get("num_nodes")),
        lambda: annotations.update(read_annotations(cfg)),
        check_model or (lambda: check_weights(cfg.model.path) if "path" in cfg.model else None),
        lambda: check_replicas(cfg),
        lambda: check_checkpoint(cfg.ckpt_path),
        *(partial(check_task, cfg, name, annotations) for name in names),
        lambda: training_order(cfg, annotations, expected_world_size(cfg)) if annotations else None,
        lambda: build(cfg.rollout),
        lambda: check_algorithm(cfg.algorithm),
    ]
    check_all(checks, HINT)
    return annotations


def check_all(checks: Iterable[Callable[[], object]], *advice: str) -> None:
    """Make all checks, so that all that is wrong is known at once.

    Args:
        checks: each raises a UserError where something is wrong.
        advice: lines behind what is wrong.

    Raises:
        UserError: what is wrong, in one message.
    """
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join([*problems, *advice]))


def expected_world_size(cfg: DictConfig) -> int:
    """Return ranks of the run, as far as they can be known before it begins."""
    devices = str(cfg.trainer.devices)
    return max(int(devices) if devices.isdigit() else 1, 1) * int(cfg.trainer.get("num_nodes") or 1)


def check_task(cfg: DictConfig, name: str, annotations: Mapping[str, Mapping[str, Annotations]]) -> None:
    """See that a task can be built, that what it needs from outside answers, and that its data fit.

    Raises:
        UserError: it cannot, or its samples have another number of boxes than it asks for.
    """
    build_budget(cfg, name)
    task = build_task(cfg, name)
    task.probe()
    for split, found in annotations.get(name, {}).items():
        check_frames(task, found.samples, f"data.sources.{name}.{split}")


def check_frames(task: Task, samples: Sequence[Sample], place: str) -> None:
    """See that a task that shows so many frames has a target for each of them.

    Raises:
        UserError: a sample with more or fewer.
    """
    for sample in samples if task.frames is not None else ():
        if isinstance(sample.target, tuple) and len(sample.target) != task.frames:
            raise UserError(
                f"{place}: sample {sample.id} has {len(sample.target)} boxes, but tasks.{task.name}.boxes="
                f"{task.frames} are asked; set the one or the other"
            )


def check_checkpoint(path: str | None) -> None:
    """See that the checkpoint exists that a run is resumed from.

    Raises:
        UserError: it does not.
    """
    if path is not None and path not in CONTINUE and not Path(path).exists():
        raise UserError(f"ckpt_path={path}: there is no such checkpoint")


def check_algorithm(algorithm: DictConfig) -> None:
    """See that the optimizer's settings and the objective can be.

    Raises:
        UserError: they cannot.
    """
    names = ("betas", "weight_decay", "warmup_steps", "schedule", "final_lr")
    if all(name in algorithm for name in names):
        check_optimizer(*(algorithm[name] for name in names))
    if algorithm.get("objective") is not None:
        build(algorithm.objective)


def check_devices(accelerator: str, devices: int | str) -> None:
    """See that the GPUs that are asked for exist.

    Raises:
        UserError: fewer GPUs than asked for.
    """
    if accelerator not in ("gpu", "cuda"):
        return
    found = torch.cuda.device_count()
    wanted = int(devices) if str(devices).lstrip("-").isdigit() else 1
    if found < max(wanted, 1):
        raise UserError(
            f"trainer.devices={devices} with trainer.accelerator={accelerator}: "
            f"this machine has {found} CUDA GPUs that torch can see"
        )


def check_replicas(cfg: DictConfig) -> None:
    """See that the ranks of a sharded run can be divided into its replicas.

    Raises:
        UserError: they cannot.
    """
    strategy = cfg.trainer.get("strategy")
    if isinstance(strategy, DictConfig) and "replicas" in strategy:
        replica_groups(strategy.replicas, expected_world_size(cfg), int(cfg.trainer.get("num_nodes") or 1))
