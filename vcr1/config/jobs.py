"""What surrounds a job of a sweep: its own command line, its own environment, and no noise of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import open_dict, read_write


def leave_ranks(environment: Mapping[str, str]) -> None:
    """Undo what Lightning set up to reach the other ranks of a job: the next job of a sweep has its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(environment)


def own_command_line() -> None:
    """In a sweep, make this process's command line that of its job.

    Lightning starts the other ranks of a job by repeating the command line, which in a sweep names the
    whole sweep.
    """
    hydra_config = HydraConfig.get()
    sys.argv[1:] = list(hydra_config.overrides.task)
    own: Any = HydraConfig.instance().cfg
    with read_write(own.hydra), open_dict(own.hydra):
        own.hydra.run.dir = hydra_config.runtime.output_dir


def quiet() -> None:
    """Leave out what libraries say to their own developers, and what the first rank says already."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        logging.getLogger("vcr1").setLevel(logging.WARNING)
        logging.getLogger("__main__").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*gradient_checkpointing_enable.*",  # its new name is not in the oldest transformers we support
        ".*in eval mode at the start of training.*",  # the reference is meant to be
        ".*recommended to use `Trainer\\(devices=1.*",  # samples that padding repeats are counted once
        ".*your dataloader is not resumable.*",  # ours is: its sampler asks the run how far it has come
        ".*LeafSpec.*is deprecated.*",
        ".*Experiment logs directory.*exists and is not empty.*",
        ".*Checkpoint directory.*exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
