"""Evaluate: ``python -m vcr1.evaluate benchmark=charades_sta+mvbench checkpoint=FOLDER trainer.devices=8``.

Interrupted and repeated, the same command goes on in its folder and ends with the same files.
Exit status: 0 when all is answered, 2 where something that the evaluation needs is missing or impossible.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("evaluate", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from vcr1.config.building import arguments_of, build
from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.config.jobs import leave_ranks, quiet
from vcr1.config.sources import loader_settings, video_reader
from vcr1.errors import UserError
from vcr1.evaluation import (
    BASE,
    NOT_GENERATED,
    Answering,
    Asked,
    Groups,
    against_base,
    agree,
    conversation_parts,
    digest_of,
    failures,
    first_looks,
    form_groups,
    in_order,
    likelihoods_of,
    make_manifest,
    model_digest,
    pending,
    preflight_evaluation,
    read_likelihoods,
    read_parts,
    sections_of,
    show_against_base,
    show_metrics,
    start_parts,
    write_evaluation_report,
    write_likelihoods,
    write_manifest,
    write_results,
)
from vcr1.inference.weights import Weights, chosen_weights
from vcr1.policy import VideoPolicy
from vcr1.policy.weights.loading import stated_rule
from vcr1.video import GuardedReader

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any] | None:
    """Ask all questions of the benchmarks that are not answered yet, and write what they score.

    With ``base`` its model is asked first, in a folder of its own.

    Returns:
        The content of metrics.json; None on other ranks than the first.

    Raises:
        UserError: something is missing or impossible, or no question at all could be answered.
    """
    runs = [cfg] if cfg.base is None else [config_of_base(cfg), cfg]
    weights: list[Weights] = []
    for one in runs:
        with said_of(cfg, one):
            weights.append(chosen_weights(one))
    asked = preflight_evaluation(
        cfg, [partial(check_run_weights, cfg, *pair) for pair in zip(runs, weights, strict=True)]
    )
    origins = []
    for one, own in zip(runs, weights, strict=True):
        with said_of(cfg, one):
            origins.append(own.ready())
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    with arguments_of("trainer"):
        trainer: L.Trainer = build(cfg.trainer)(
            logger=False, enable_checkpointing=False, use_distributed_sampler=False
        )
    if asked.plan.rounds and hasattr(trainer.strategy, "shard"):
        raise UserError("clues= needs the whole model on each rank: choose strategy=ddp or strategy=auto")
    if trainer.is_global_zero:
        settle(runs, [model_facts(*pair) for pair in zip(runs, origins, strict=True)], asked)
    reader = video_reader(cfg)
    for one in runs:
        answer(one, asked, trainer, reader)
    if not trainer.is_global_zero:
        return None
    # Last of all: what goes wrong here must not let another rank wait for this one's next answer.
    *_, metrics = [finish(one, asked, reader) for one in runs]
    return metrics


def settle(runs: Sequence[DictConfig], models: Sequence[Mapping[str, Any]], asked: Asked) -> None:
    """Write down what the answers in each folder depend on; those of the checkpoint name its base.

    Raises:
        UserError: a folder holds answers that depend on something else; nothing is written then.
    """
    bases = [None] if len(runs) == 1 else [None, models[0]]
    manifests = [manifest_of(*one, asked) for one in zip(runs, models, bases, strict=True)]
    for one, manifest in zip(runs, manifests, strict=True):
        agree(Path(one.run_dir), manifest)
    for one, manifest in zip(runs, manifests, strict=True):
        write_manifest(Path(one.run_dir), manifest)
        start_parts(Path(one.run_dir))


def config_of_base(cfg: DictConfig) -> DictConfig:
    """Return the same evaluation of the base, in the folder ``base`` of the run's."""
    base = cfg.copy()
    base.checkpoint, base.base, base.run_dir = cfg.base, None, str(Path(cfg.run_dir) / BASE)
    return base


@contextmanager
def said_of(cfg: DictConfig, run: DictConfig) -> Iterator[None]:
    """Within, what is wrong with the base is said of ``base``."""
    try:
        yield
    except UserError as error:
        if run is cfg:
            raise
        raise UserError(f"base={cfg.base}: {error}") from error


def answer(cfg: DictConfig, asked: Asked, trainer: L.Trainer, reader: GuardedReader) -> None:
    """Let one model answer what waits for an answer."""
    benchmarks, folder, draws = asked.benchmarks, Path(cfg.run_dir), int(cfg.evaluation.draws)
    settings = loader_settings(cfg)
    looked = first_looks(benchmarks, asked.plan)
    groups = form_groups(looked, settings.eval_batch_size)
    # Known on every rank before any of them can write: they meet at the start of the test.
    waiting = pending(groups, benchmarks, draws, read_parts(folder))
    read = read_likelihoods(conversation_parts(folder))
    unread = [one for one in asked.conversations if one.line not in read]
    log.info("%d of %d groups of questions wait for their answers", len(waiting), len(groups))
    begin = time.perf_counter()
    if waiting or unread:
        policy: VideoPolicy = build(cfg.model)
        more = (cfg.seed, asked.plan, reader, asked.limits)
        module = Answering(policy, benchmarks, asked.sampling, draws, folder, *more)
        data = Groups(waiting, looked, policy, settings, unread, asked.limits, reader)
        trainer.test(module, data, verbose=False)
        trainer.strategy.barrier()
    log.info("answered in %.1f s", time.perf_counter() - begin)


def check_run_weights(cfg: DictConfig, run: DictConfig, weights: Weights) -> None:
    """See that the weights of a run can be had, without loading them."""
    with said_of(cfg, run):
        weights.check()


def manifest_of(
    cfg: DictConfig, model: Mapping[str, Any], base: Mapping[str, Any] | None, asked: Asked
) -> dict[str, Any]:
    """Return what the answers depend on."""
    plan, read = asked.plan, asked.conversations
    return make_manifest(
        asked.benchmarks,
        asked.sampling,
        cfg.evaluation.draws,
        clues=asdict(plan) if plan.rounds else None,
        conversations={"count": len(read), "digest": digest_of(read)} if read else None,
        model=model,
        base=base,
        precision={"dtype": str(cfg.model.get("dtype")), "trainer": str(cfg.trainer.precision)},
        batch_size=loader_settings(cfg).eval_batch_size,
        bounds={"longest": asked.limits.query, "seconds": asked.limits.seconds},
        seed=cfg.seed,
    )


def model_facts(cfg: DictConfig, origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """State where a run's model is, its digest, its rule for positions, and the checkpoint it came from."""
    if "path" not in cfg.model:
        return {"path": None, "digest": None, "text_after_video": None, "checkpoint": origin}
    path = str(cfg.model.path)
    return {
        "path": path,
        "digest": model_digest(path),
        "text_after_video": stated_rule(path, cfg.model.get("text_after_video")),
        "checkpoint": origin,
    }


def finish(cfg: DictConfig, asked: Asked, reader: GuardedReader) -> dict[str, Any]:
    """Put the ranks' answers together and write the results.

    Raises:
        UserError: not one question could be answered, for want of memory or the like.
    """
    benchmarks, folder, draws = asked.benchmarks, Path(cfg.run_dir), int(cfg.evaluation.draws)
    found = read_parts(folder)
    found |= {answer.key: answer for one in benchmarks for answer in failures(one, one.lost)}
    answers = in_order(benchmarks, found, draws)
    if all(answer.failure == NOT_GENERATED for answer in answers):
        raise UserError(
            "the model could not answer a single question; the log says why. Try less video "
            "(data.video.total_pixels), fewer questions at once (data.loader.eval_batch_size), another model"
        )
    likelihoods = likelihoods_of(
        [one.line for one in asked.conversations], read_likelihoods(conversation_parts(folder))
    )
    more = write_likelihoods(folder, likelihoods) if likelihoods else {}
    forgetting = None if cfg.base is None else against_base(folder, answers, likelihoods)
    metrics = write_results(folder, answers, draws, more)
    first = sections_of(metrics, forgetting)
    write_evaluation_report(folder, benchmarks, answers, metrics, cfg.evaluation.examples, first, reader)
    show_metrics(metrics)
    if forgetting is not None:
        show_against_base(forgetting)
    log.info("Everything is in %s", folder)
    return metrics


def run_job(cfg: DictConfig) -> Any:
    """Evaluate, as a Hydra job."""
    quiet()
    environment = dict(os.environ)
    try:
        with exit_on_user_error():
            return evaluate(cfg)
    finally:
        leave_ranks(environment)


main = command_line(run_job, "evaluate")

if __name__ == "__main__":
    main()
