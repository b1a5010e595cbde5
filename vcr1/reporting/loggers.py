"""Weights & Biases that works offline, never asks and never blocks; a table that can be gone on with."""

from __future__ import annotations

import csv
import logging
import netrc
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from vcr1.errors import UserError
from vcr1.records.files import replacing, write_whole

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
METRICS = ExperimentWriter.NAME_METRICS_FILE
"""Name of the table of metrics in a run's folder."""
WANDB_ID = ".wandb_id"
"""File in a run's folder with the id of its W&B run."""


class MetricsTable(CSVLogger):
    """Lightning's ``metrics.csv``, except that a table that is there already is gone on with.

    What of an earlier part of the run still counts is decided before; see :func:`keep_metrics`.
    """

    @property
    def experiment(self) -> Any:
        """Return what writes the table."""
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _TableWriter(log_dir=self.log_dir)
        return super().experiment


class _TableWriter(ExperimentWriter):
    """Appends to the table, and gives it another heading whole or not at all."""

    def _check_log_dir_exists(self) -> None:
        """Take over the heading of a table that is there, which Lightning would remove."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        _write_table(path, fieldnames, rows)


def keep_metrics(path: Path, step: int) -> None:
    """Leave in a table of metrics what was logged of the first ``step`` updates; the others come again."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        # The last line of a killed run may be cut off: it has no step, or one that does not stay.
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < step]
    if not names:  # the disk was full when the table was begun
        path.unlink()
        return
    _write_table(path, names, rows)


def _write_table(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def wandb_logger(
    folder: str, project: str, group: str | None = None, tags: Sequence[str] = (), mode: str = "auto"
) -> WandbLogger:
    """Return a W&B logger whose run is named after the run's folder; a sweep's job after the sweep's, too.

    The id of the W&B run is kept in the folder: what is logged into the same folder later goes on with it.

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
    return SteadyWandbLogger(experiment=run, save_dir=folder, project=project)


class SteadyWandbLogger(WandbLogger):
    """Lightning's W&B logger, except that no failure of W&B reaches the run: the first one is a warning."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self._try(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        """Log the config."""
        self._try(super().log_hyperparams, params)

    def finalize(self, status: str) -> None:
        """End the log of a run."""
        self._try(super().finalize, status)

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # of whatever kind: a log is worth no run
            _warn_once(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def finish_wandb(failed: bool) -> None:
    """End the W&B run of this process, if it has one; a server that fails at the end is a warning."""
    try:
        wandb.finish(exit_code=int(failed))
    except Exception as error:  # as above: a log is worth no run
        _warn_once(f"{type(error).__name__}: {error}")


@cache
def _warn_once(problem: str) -> None:
    """Say that W&B has failed, once for each way in which it does."""
    log.warning("W&B has failed (%s); the run goes on, and its metrics are in %s", problem, METRICS)


def _start(folder: str, project: str, group: str | None, tags: list[str], mode: str) -> wandb.Run:
    """Start a run; where the server does not answer in time, start it offline, and else not at all."""
    if mode == "online" and (problem := unreachable()):
        log.warning("%s: this run is logged offline; upload it later with wandb sync", problem)
        mode = "offline"
    try:
        return wandb.init(
            dir=folder,
            project=project,
            name=run_name(Path(folder)),
            group=group,
            tags=tags,
            mode=mode,  # type: ignore[arg-type]
            id=None if mode == "disabled" else _run_id(Path(folder)),
            resume="allow",
            settings=wandb.Settings(
                init_timeout=30, finish_timeout=60, finish_timeout_raises=False, silent=True
            ),
        )
    except Exception as error:  # W&B's own, and those of its service, of a full disk, of a proxy
        wandb.teardown()  # its service keeps the run's id, and would refuse it the second time
        line = (str(error).splitlines() or [type(error).__name__])[0]
        if mode == "disabled":
            raise
        less = "offline" if mode == "online" else "disabled"
        hint = "; upload it later with wandb sync" if less == "offline" else ""
        log.warning("W&B does not start (%s): for this run it is %s%s", line, less, hint)
        return _start(folder, project, group, tags, less)


def unreachable(seconds: float = 5.0) -> str | None:
    """Return a sentence where W&B's server takes no connection; None where it does, or a proxy is between."""
    place = urlparse(wandb.setup().settings.base_url)
    if place.hostname is None or (getproxies().get(place.scheme) and not proxy_bypass(place.hostname)):
        return None
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname, port), timeout=seconds).close()
    except OSError as error:
        return f"W&B at {place.hostname}:{port} does not answer ({error})"
    return None


def _run_id(folder: Path) -> str:
    """Return the id of the W&B run in a folder; a new one where it has none yet."""
    path = folder / WANDB_ID
    if not path.is_file():
        write_whole(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


def run_name(folder: Path) -> str:
    """Return name of the run in a folder; the folders of a sweep's jobs are plain numbers."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name


def logged_in() -> bool:
    """Return True where W&B finds a key without asking: in the environment or in the netrc file."""
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
    """Return commit of the working folder and whether it was changed since; empty outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
