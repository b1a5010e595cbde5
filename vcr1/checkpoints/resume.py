"""Which checkpoint a run goes on from, whether it is of the same run, and what of its folder still counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcr1.checkpoints.callback import FACTS
from vcr1.checkpoints.files import UnreadableError, move_aside, newest_checkpoint, read_facts, set_aside
from vcr1.checkpoints.folders import CONTINUE
from vcr1.distributed.ranks import from_first
from vcr1.distributed.shards import INDEX
from vcr1.errors import UserError
from vcr1.reporting.loggers import METRICS, WANDB_ID, keep_metrics

log = logging.getLogger(__name__)

HARMLESS = (
    "name",
    "group",
    "tags",
    "ckpt_path",
    "run_dir",
    "logger",
    "callbacks",
    "report",
    "check",
    "data.root",
    "data.loader.num_workers",
    "data.loader.prefetch",
    "data.loader.eval_batch_size",
    "model.gradient_checkpointing",
    *(
        f"trainer.{name}"
        for name in (
            "enable_progress_bar",
            "enable_model_summary",
            "default_root_dir",
            "log_every_n_steps",
            "val_check_interval",
            "check_val_every_n_epoch",
            "limit_val_batches",
            "num_sanity_val_steps",
        )
    ),
)
"""What may differ between two parts of one run."""
BEFORE = ".before.json"
"""File in a run's folder with the evaluation before training."""
OUTCOME = ("report.json", "report.md", "held_out.jsonl")
"""What a run writes at its end."""
LENGTH = ("trainer.max_epochs", "trainer.max_steps")
"""What may differ where the learning rate does not depend on the length of the run."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A checkpoint to go on from.

    Attributes:
        path: file or folder.
        step: updates that it has behind it.
        config: of its run; empty where it does not tell.
    """

    path: Path
    step: int
    config: Mapping[str, Any]

    def within(self, folder: Path) -> bool:
        """Return whether it is of the run in this folder, which so goes on where it was."""
        return self.path.resolve().is_relative_to(folder.resolve())


def find_resumed(ckpt_path: str | None, folder: Path) -> Resumed | None:
    """Return the checkpoint that ``ckpt_path`` means.

    Args:
        ckpt_path: a checkpoint, or a run's folder for its newest one; ``last``, the newest one in
            ``folder``; ``auto``, the same if there is any; None for a fresh start.
        folder: the run's own checkpoints.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if ckpt_path is None:
        return None
    if ckpt_path in CONTINUE:  # read by one rank, as all of it is compared with its check sums
        found = from_first(f"checkpoint of {folder}", lambda: str(newest_checkpoint(folder) or ""))
        path = Path(found) if found else None
    else:
        path = Path(ckpt_path)
        if path.is_dir() and not (path / INDEX).is_file():  # a run's folder
            folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
            path = newest_checkpoint(folder) or path
    if path is None and ckpt_path == "auto":
        return None
    if path is None:
        raise UserError(
            f"ckpt_path=last: there is no checkpoint in {folder} to go on from, nor in a run of this name; "
            f"ckpt_path=auto starts anew where there is none"
        )
    if not path.exists():
        raise UserError(f"ckpt_path={ckpt_path}: there is no such checkpoint")
    try:
        facts = read_facts(path, whole=ckpt_path not in CONTINUE)
    except UnreadableError as error:
        raise UserError(f"ckpt_path={ckpt_path} cannot be read: {error}") from error
    return Resumed(path, int(facts["global_step"]), facts.get(FACTS, {}).get("config", {}))


def check_same_run(resumed: Resumed, config: Mapping[str, Any]) -> None:
    """Compare the run of a checkpoint with the one that goes on from it, and name what differs.

    Raises:
        UserError: they train different models.
    """
    if not resumed.config:
        return
    found = setting_differences(resumed.config, config)
    kinds = [one.get("algorithm", {}).get("_target_") for one in (resumed.config, config)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"ckpt_path: {resumed.path} is of a run of {kinds[0]}, and this one is of {kinds[1]}: only the "
            f"same run can be gone on with. model.path={resumed.path} begins a new one with its weights"
        )
    listed = "; ".join(f"{name} was {was}, is {now}" for name, (was, now) in found.items())
    if any(name.split(".")[0] == "model" for name in found):
        raise UserError(f"ckpt_path: {resumed.path} is of another model: {listed}")
    if found:
        log.warning(
            "this run does not continue %s exactly: %s; model.path=... instead of ckpt_path=... begins a new "
            "run with its weights",
            resumed.path,
            listed,
        )


def setting_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (saved value, value now) of settings by which two runs differ in what they learn."""
    before, after = dict(flatten(saved)), dict(flatten(now))
    harmless = HARMLESS
    if {before.get("algorithm.schedule"), after.get("algorithm.schedule")} == {"constant"}:
        harmless += LENGTH
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and not any(name == entry or name.startswith(f"{entry}.") for entry in harmless)
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all settings."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def prepare_folder(folder: Path, resumed: Resumed | None, checkpoints: Path | None = None) -> None:
    """Leave of a run's earlier parts what belongs to it; of another run in the same folder, nothing.

    Checkpoints are not removed but set aside.

    Args:
        folder: of the run.
        resumed: the checkpoint that it goes on from.
        checkpoints: where the run writes them; in its folder where None.
    """
    metrics, checkpoints = folder / METRICS, checkpoints or folder / "checkpoints"
    goes_on = resumed is not None and resumed.path.resolve().is_relative_to(checkpoints.resolve())
    set_aside(checkpoints, resumed.step if resumed is not None and goes_on else None)
    if resumed is not None and resumed.within(folder):
        if metrics.is_file():
            keep_metrics(metrics, resumed.step)
        return
    for path in (folder / WANDB_ID, folder / BEFORE):
        path.unlink(missing_ok=True)
    if older := [folder / name for name in (METRICS, *OUTCOME) if (folder / name).is_file()]:
        log.warning("what an older run had written is in %s now", move_aside(older, folder))
