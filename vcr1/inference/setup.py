"""From the config of a prediction to its questions and its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from vcr1.config.building import build
from vcr1.config.sources import build_budget, build_task, video_reader
from vcr1.errors import UserError
from vcr1.inference.asking import Asker
from vcr1.inference.clues import CluePlan
from vcr1.inference.limits import Limits
from vcr1.inference.questions import Failure, Question, QuestionDefaults, read_questions
from vcr1.inference.weights import chosen_weights
from vcr1.tasks import FREE
from vcr1.video import DECODERS, GuardedReader

COMMON = ("box", "options", "start", "end", "fps")
"""Settings that say the same of every question."""


def is_batch(cfg: DictConfig) -> bool:
    """Return whether there may be several videos, of which one that cannot be shown does not end the run."""
    video = str(cfg.video)
    try:
        return video.lower().endswith(".jsonl") or (cfg.fps is None and Path(video).is_dir())
    except OSError:  # no name that a file can have
        return False


def questions_of(cfg: DictConfig, limits: Limits, plan: CluePlan) -> list[Question | Failure]:
    """Return what is asked.

    Raises:
        UserError: nothing, or what cannot be; or further looks for a task that names no times.
    """
    tasks = {str(name): build_task(cfg, str(name)) for name in cfg.get("tasks") or {}}
    if len(tasks) > 1 and not str(cfg.video).lower().endswith(".jsonl"):
        raise UserError(
            f"task={'+'.join(tasks)}: choose one, or ask by a JSONL file whose lines name their task"
        )
    plain: Any = OmegaConf.to_container(cfg)
    query = plain["query"]
    queries = query if isinstance(query, list) else [] if query is None else [query]
    common = {name: plain[name] for name in COMMON}
    manner = QuestionDefaults(
        next(iter(tasks)) if len(tasks) == 1 else FREE.name,
        tasks,
        int(limits.query),
        common,
        videos=None if cfg.videos is None else str(cfg.videos),
    )
    asked = read_questions(str(cfg.video), [str(one) for one in queries], manner)
    kinds = {one.task for one in asked if isinstance(one, Question)} if plan.rounds else set()
    timeless = sorted(kind.name for kind in kinds if not kind.names_times)
    if timeless:
        raise UserError(
            f"clues={plan.rounds}: {', '.join(timeless)} names no times to look at again; "
            f"take a task that does, such as task=grounding"
        )
    return asked


def check_render(cfg: DictConfig, batch: bool) -> None:
    """See that the video with the answers can be drawn and written.

    Raises:
        UserError: ``render`` does not name an MP4 of its own in a folder, or there is no single video file.
    """
    if cfg.render is None:
        return
    path = Path(cfg.render)
    if batch or cfg.fps is not None:
        raise UserError(f"render={path}: draws into one video file; give video=clip.mp4")
    if path.suffix.lower() != ".mp4" or not path.absolute().parent.is_dir():
        raise UserError(f"render={path}: must name an MP4 in a folder that exists")
    if path.absolute() == Path(cfg.video).absolute():
        raise UserError(f"render={path} would overwrite the video; choose another name")


def check_prediction(cfg: DictConfig) -> torch.device:
    """See that the settings of a prediction can be used, before anything heavy starts.

    Returns:
        The device.

    Raises:
        UserError: there is no folder for the answers; or as :func:`check_model`.
    """
    if not Path(cfg.out).absolute().parent.is_dir():
        raise UserError(f"out={cfg.out}: there is no folder {Path(cfg.out).parent}; make it first")
    return check_model(cfg)


def check_model(cfg: DictConfig) -> torch.device:
    """See that the model can be used, and settle where its weights are and what they are computed in.

    Returns:
        The device.

    Raises:
        UserError: there is no such device, decoder or weights.
    """
    if cfg.data.loader.decoder not in DECODERS:
        raise UserError(f"data.loader.decoder must be one of {', '.join(DECODERS)}")
    name = str(cfg.device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: take auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: there is no such GPU; take device=cpu")
    with open_dict(cfg):
        if cfg.model.dtype is None:
            cfg.model.dtype = "float32" if device.type == "cpu" else "bfloat16"
    build(cfg.rollout)
    weights = chosen_weights(cfg)
    weights.check()
    weights.ready()
    return device


def build_asker(
    cfg: DictConfig, device: torch.device, limits: Limits, reader: GuardedReader | None = None
) -> Asker:
    """Return the model on its device, with the tasks; ``reader`` decodes, None for one as the config says.

    Raises:
        UserError: weights or a setting that cannot be used.
    """
    sampling = build(cfg.rollout)
    budgets = {name: build_budget(cfg, name) for name in [*map(str, cfg.get("tasks") or {}), FREE.name]}
    policy = build(cfg.model)
    policy.eval().requires_grad_(False).to(device)
    return Asker(policy, budgets, sampling, reader or video_reader(cfg), limits, cfg.seed)
