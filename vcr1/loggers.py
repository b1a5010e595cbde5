"""Weights & Biases that works offline, never asks and never blocks."""

from __future__ import annotations

import logging
import netrc
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vcr1.errors import UserError

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")


def wandb_logger(
    folder: str, project: str, group: str | None = None, tags: Sequence[str] = (), mode: str = "auto"
) -> WandbLogger:
    """A W&B logger whose run is named after the run's folder; a sweep's job after the sweep's, too.

    Args:
        folder: the run's folder; see :func:`run_name`.
        project: W&B project.
        group: what the run is compared with; jobs of a sweep are grouped by the sweep's folder.
        tags: of the run.
        mode: ``auto`` is online where the user is logged in and offline otherwise; ``WANDB_MODE`` goes first.

    Raises:
        UserError: an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"logger.wandb.mode={mode}; choose from {', '.join(MODES)}")
    chosen = os.environ.get("WANDB_MODE") or mode
    if chosen == "auto":
        chosen = "online" if logged_in() else "offline"
    if getattr(rank_zero_only, "rank", 0) != 0:
        chosen = "disabled"
    Path(folder).mkdir(parents=True, exist_ok=True)
    run = _start(folder, project, group, list(tags), chosen)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run, save_dir=folder, project=project)


def _start(folder: str, project: str, group: str | None, tags: list[str], mode: str) -> wandb.Run:
    """Start a run; where the server does not answer in time, start it offline."""
    try:
        return wandb.init(
            dir=folder,
            project=project,
            name=run_name(Path(folder)),
            group=group,
            tags=tags,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(init_timeout=30, silent=True),
        )
    except (wandb.errors.CommError, wandb.errors.AuthenticationError) as error:
        if mode != "online":
            raise
        log.warning(
            "W&B does not answer (%s): this run is logged offline; upload it later with wandb sync", error
        )
        return _start(folder, project, group, tags, "offline")


def run_name(folder: Path) -> str:
    """Name of the run in a folder; the folders of a sweep's jobs are plain numbers."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name


def logged_in() -> bool:
    """True where W&B finds a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    # W&B's own default has moved between its versions; a key for the old place still counts there.
    own = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
    hosts = {urlparse(own).hostname or ""} | (set() if "WANDB_BASE_URL" in os.environ else {"api.wandb.ai"})
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        keys = netrc.netrc(str(path))
        return any(keys.authenticators(host) is not None for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def git_state() -> dict[str, str | bool]:
    """Commit of the working folder and whether it was changed since; empty outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
