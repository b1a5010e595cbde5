"""``strategy=auto``: sharded where the model needs it, replicated where it does not."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vcr1.config.choices import conf_dir
from vcr1.errors import UserError
from vcr1.planning.report import make_plan
from vcr1.planning.settings import devices_of

log = logging.getLogger(__name__)


def with_strategy(cfg: DictConfig) -> DictConfig:
    """Return the config with a strategy in the place of ``auto``, where a run has several GPUs.

    Replicas (DDP) where the plan says that they fit, else shards (FSDP2); of a model that cannot be planned,
    replicas. What is named otherwise, runs on one device and runs on CPUs stay as they are.
    """
    ranks = devices_of(cfg) * int(cfg.trainer.get("num_nodes") or 1)
    on_gpu = str(cfg.trainer.accelerator) != "cpu"
    if cfg.trainer.get("strategy") != "auto" or ranks < 2 or not on_gpu:
        return cfg
    replicated = _named(cfg, "ddp")
    try:
        fits = make_plan(replicated).fits
    except UserError:  # a family whose memory nobody has written down; the plan says so itself
        return replicated
    log.info("strategy=auto: %s", "ddp, every GPU holds the model" if fits else "fsdp, one GPU is too small")
    return replicated if fits else _named(cfg, "fsdp")


def _named(cfg: DictConfig, name: str) -> DictConfig:
    """Return the config with one of the shipped strategies."""
    found: Any = OmegaConf.load(conf_dir() / "strategy" / f"{name}.yaml")
    changed = cfg.copy()
    with open_dict(changed):
        changed.trainer.strategy = found.strategy
    return changed
