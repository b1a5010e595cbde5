"""Train: ``python -m vcr1.train task=grounding trainer.devices=8`` or ``experiment=demo``."""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("train", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vcr1.checkpoints import (
    BEFORE,
    Checkpoints,
    Resumed,
    check_same_run,
    explained,
    find_resumed,
    locked,
    prepare_folder,
)
from vcr1.config.building import arguments_of, build, build_all
from vcr1.config.entry import command_line, note_failed_job
from vcr1.config.jobs import leave_ranks, own_command_line, quiet
from vcr1.config.preflight import preflight
from vcr1.config.sources import build_data
from vcr1.data import MixtureDataModule
from vcr1.distributed.watchdog import Heartbeats, Watchdog
from vcr1.errors import Preempted
from vcr1.evaluation import write_held_out
from vcr1.inference.weights import starting_weights
from vcr1.module import PolicyModule
from vcr1.planning import announce_plan, with_strategy
from vcr1.readers import Annotations
from vcr1.records.files import write_whole
from vcr1.reporting.callbacks import HuggingFaceExport
from vcr1.reporting.card import model_card, recipe_of
from vcr1.reporting.evaluation import Evaluation, read_evaluation
from vcr1.reporting.loggers import finish_wandb, git_state
from vcr1.reporting.report import (
    Clock,
    Report,
    baselines,
    evaluate_held_out,
    show_table,
    write_report,
)

log = logging.getLogger(__name__)


def train(cfg: DictConfig, watchdog: Watchdog | None = None) -> Report:
    """Train as configured; evaluate before and after as ``report`` says.

    Args:
        cfg: the composed config.
        watchdog: what is told of everything that moves.

    Raises:
        UserError: something that the run needs is missing or impossible.
        Preempted: the run was told to stop, and has saved itself.
    """
    weights = starting_weights(cfg)
    annotations = preflight(cfg, weights.check)
    weights.ready()
    first = getattr(rank_zero_only, "rank", 0) == 0
    with locked(Path(cfg.run_dir)) if first else nullcontext():
        return _train(cfg, annotations, watchdog)


def _train(
    cfg: DictConfig, annotations: Mapping[str, Mapping[str, Annotations]], watchdog: Watchdog | None
) -> Report:
    """Train in a folder of one's own."""
    resumed = resume(cfg)
    cfg = with_strategy(cfg)
    announce_plan(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    policy = build(cfg.model)
    data = build_data(cfg, annotations, policy.encoder)
    with arguments_of("algorithm"):
        module = build(cfg.algorithm)(policy=policy)
    loggers = build_all(cfg.get("logger"))
    callbacks = build_callbacks(cfg, resumed)
    if watchdog is not None:
        callbacks.append(Heartbeats(watchdog))
    with arguments_of("trainer"):
        trainer: L.Trainer = build(cfg.trainer)(callbacks=callbacks, logger=loggers)
    git = git_state()
    for logger in loggers:
        logger.log_hyperparams({"config": OmegaConf.to_container(cfg, resolve=True), "git": git})

    report = Report()
    held_out = any("val" in splits for splits in annotations.values())
    if cfg.report.before and held_out:
        report.before = evaluate_before(trainer, module, data, Path(cfg.run_dir), resumed)
        log.info("before training: %s", report.before)
    clock = Clock()
    trainer.fit(module, data, ckpt_path=resumed.path if resumed else None)
    report.seconds["training"] = clock.read()
    if resumed and not module.update_log.update:
        warn_of_the_end(cfg, resumed)
    clock = Clock()
    if cfg.report.after and held_out:
        report.after = evaluate_held_out(trainer, module, data.val_dataloader())
        report.baselines = baselines(data, report.after) if trainer.is_global_zero else {}
    if cfg.report.wrong_video and held_out:
        report.wrong_video = evaluate_held_out(trainer, module, data.wrong_video_dataloader(), "wrong_video")
    report.seconds["evaluation"] = clock.read()
    if policy.feature_cache is not None:
        log.info("%s", policy.feature_cache)
    if trainer.is_global_zero:
        write_outcome(cfg, report, data, trainer.global_step)
        recipe = recipe_of(cfg, git=git)
        card = model_card(recipe, report.as_json(), trainer.global_step, config=policy.model.config)
        describe_exports(callbacks, card)
    return report


def write_outcome(cfg: DictConfig, report: Report, data: MixtureDataModule, steps: int) -> None:
    """Write what was measured into the run's folder, and show its table."""
    folder = Path(cfg.run_dir)
    if not report.after and (folder / "report.json").is_file():
        log.warning(
            "%s stays as it was: this part of the run has measured nothing after training",
            folder / "report.json",
        )
        return
    write_report(report, folder, data, cfg.report.clips, {"seed": cfg.seed, "steps": steps})
    if report.after:
        write_held_out(folder, report.after.judgements, data.parts)
    show_table(report)
    log.info("Everything is in %s", folder)


def resume(cfg: DictConfig) -> Resumed | None:
    """Return the checkpoint that the run goes on from, if any; its folder is made ready for that.

    Raises:
        UserError: there is none where one is named, or it is of another model.
    """
    resumed = find_resumed(cfg.ckpt_path, checkpoint_folder(cfg))
    if resumed is not None:
        check_same_run(resumed, as_written(cfg))
        log.info("going on after update %d, from %s", resumed.step, resumed.path)
    if getattr(rank_zero_only, "rank", 0) == 0:
        prepare_folder(Path(cfg.run_dir), resumed, checkpoint_folder(cfg))
    return resumed


def build_callbacks(cfg: DictConfig, resumed: Resumed | None) -> list[L.Callback]:
    """Return the callbacks; what writes checkpoints knows which run they are of."""
    callbacks = build_all(cfg.get("callbacks"))
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.config, callback.resumed = as_written(cfg), resumed.path if resumed else None
    return callbacks


def warn_of_the_end(cfg: DictConfig, resumed: Resumed) -> None:
    """Say why a resumed run has trained nothing."""
    log.warning(
        "nothing was trained: %s had come to the end of trainer.max_epochs=%s or max_steps=%s already; "
        "trainer.max_epochs=-1 lets max_steps alone decide",
        resumed.path,
        cfg.trainer.max_epochs,
        cfg.trainer.max_steps,
    )


def checkpoint_folder(cfg: DictConfig) -> Path:
    """Return where the run keeps its checkpoints."""
    return Path(OmegaConf.select(cfg, "callbacks.checkpoint.folder") or Path(cfg.run_dir) / "checkpoints")


def as_written(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain data, its interpolations as they are: so it says what was chosen, not where."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return dict(plain)


def evaluate_before(
    trainer: L.Trainer, module: PolicyModule, data: MixtureDataModule, folder: Path, resumed: Resumed | None
) -> Evaluation | None:
    """Return the evaluation before training; a run that goes on in its folder has it from there."""
    kept = folder / BEFORE
    if resumed is not None and resumed.within(folder):
        if not (trainer.is_global_zero and kept.is_file()):
            return None
        try:
            return read_evaluation(kept.read_text(encoding="utf-8"), data.parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s): the report has no evaluation before training", kept, error)
            return None
    evaluation = evaluate_held_out(trainer, module, data.val_dataloader())
    if trainer.is_global_zero:
        write_whole(kept, evaluation.as_text())
    return evaluation


def describe_exports(callbacks: Iterable[Any], card: str) -> None:
    """Put the model card into what was exported."""
    for callback in callbacks:
        if isinstance(callback, HuggingFaceExport):
            callback.describe(card)


def run_job(cfg: DictConfig) -> Any:
    """Return one Hydra job: train, say what is wrong without a stack, leave nothing open for the next job."""
    quiet()
    environment = dict(os.environ)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweeping:
        own_command_line()
        cfg.group = cfg.group or Path(HydraConfig.get().sweep.dir).name
    failed = True
    watchdog = None
    try:
        with arguments_of("watchdog"):
            watchdog = Watchdog(cfg.run_dir, **cfg.watchdog).start()
        report = train(cfg, watchdog)
        failed = False
    except Preempted as stop:  # on all ranks alike: no failure that others must hear of
        if stop.code:
            print(f"vcr1: {stop.message}", file=sys.stderr)
        raise
    except BaseException as error:
        said = explained(error, Path(cfg.run_dir), checkpoint_folder(cfg))
        if said is not None:
            print(f"vcr1: {said}", file=sys.stderr, flush=True)
        if watchdog is not None:
            watchdog.report(said or error)
        if said is None:
            raise
        if not sweeping:
            sys.exit(2)
        note_failed_job(said)
        return None
    finally:
        finish_wandb(failed)
        if watchdog is not None:
            watchdog.close()
        leave_ranks(environment)
    return report.after.scores if report.after else None


main = command_line(run_job, "train")

if __name__ == "__main__":
    main()
