"""Evaluate: ``python -m vcr1.evaluate benchmark=charades_sta+mvbench checkpoint=FOLDER trainer.devices=8``.

Interrupted and repeated, the same command goes on in its folder and ends with the same files.
Exit status: 0 when all is answered, 2 where something that the evaluation needs is missing or impossible.
"""

from __future__ import annotations

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from vcr1.config import arguments_of, build, command_line, loader_settings
from vcr1.errors import UserError
from vcr1.evaluation import (
    NOT_GENERATED,
    Answering,
    Benchmark,
    Groups,
    agree,
    failures,
    form_groups,
    in_order,
    make_manifest,
    model_digest,
    pending,
    read_benchmarks,
    read_parts,
    show,
    write_manifest,
    write_report,
    write_results,
)
from vcr1.policy import Sampling, VideoPolicy
from vcr1.preflight import check_devices
from vcr1.train import leave_ranks, quiet
from vcr1.weights import Weights, weights_of

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any] | None:
    """Ask all questions of the benchmarks that are not answered yet, and write what they score.

    Returns:
        The content of metrics.json; None on other ranks than the first.

    Raises:
        UserError: something is missing or impossible, or no question at all could be answered.
    """
    weights = weights_of(cfg)
    benchmarks, sampling = preflight(cfg, weights)
    origin = weights.ready()
    folder, draws, settings = Path(cfg.run_dir), int(cfg.evaluation.draws), loader_settings(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    with arguments_of("trainer"):
        trainer: L.Trainer = build(cfg.trainer)(
            logger=False, enable_checkpointing=False, use_distributed_sampler=False
        )
    if trainer.is_global_zero:
        manifest = manifest_of(cfg, benchmarks, sampling, settings.eval_batch_size, origin)
        agree(folder, manifest)
        write_manifest(folder, manifest)
    policy: VideoPolicy = build(cfg.model)
    groups = form_groups(benchmarks, settings.eval_batch_size)
    # Known on every rank before any of them can write: they meet at the start of the test.
    waiting = pending(groups, benchmarks, draws, read_parts(folder))
    log.info("%d of %d groups of questions wait for their answers", len(waiting), len(groups))
    begin = time.perf_counter()
    if waiting:
        module = Answering(policy, benchmarks, sampling, draws, folder, cfg.seed)
        trainer.test(
            module, Groups(waiting, benchmarks, policy, settings, cfg.evaluation.longest), verbose=False
        )
        trainer.strategy.barrier()
    log.info("answered in %.1f s", time.perf_counter() - begin)
    return finish(benchmarks, folder, draws, cfg.evaluation.examples) if trainer.is_global_zero else None


def preflight(cfg: DictConfig, weights: Weights) -> tuple[list[Benchmark], Sampling]:
    """Check everything that an evaluation needs, and read its annotations on the way.

    Raises:
        UserError: all that is missing, in one message.
    """
    benchmarks: list[Benchmark] = []
    sampling: list[Sampling] = []
    checks: list[Callable[[], object]] = [
        lambda: check_devices(cfg.trainer.accelerator, cfg.trainer.devices),
        weights.check,
        lambda: benchmarks.extend(read_benchmarks(cfg, cfg.evaluation.limit)),
        lambda: sampling.append(sampling_of(cfg)),
        lambda: check_longest(cfg.evaluation.longest),
        lambda: probe(benchmarks),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return benchmarks, sampling[0]


def probe(benchmarks: Sequence[Benchmark]) -> None:
    """See that what the tasks need from outside, such as a judge, answers."""
    for one in benchmarks:
        one.task.probe()


def check_longest(longest: object) -> None:
    """See that the limit of prompts is one.

    Raises:
        UserError: it is not.
    """
    if not isinstance(longest, int) or longest < 1:
        raise UserError(f"evaluation.longest={longest} is no whole number of at least 1")


def sampling_of(cfg: DictConfig) -> Sampling:
    """How completions are drawn.

    Raises:
        UserError: a number of draws that makes no sense, several of them without a temperature included.
    """
    draws, sampling = cfg.evaluation.draws, build(cfg.rollout)
    if not isinstance(draws, int) or draws < 1:
        raise UserError(f"evaluation.draws={draws} is no whole number of at least 1")
    if draws > 1 and sampling.temperature == 0:
        raise UserError(
            f"evaluation.draws={draws} with rollout.temperature=0: all draws would be the same; "
            f"set a temperature, such as rollout.temperature=0.7"
        )
    found: Sampling = sampling
    return found


def manifest_of(
    cfg: DictConfig,
    benchmarks: Sequence[Benchmark],
    sampling: Sampling,
    batch_size: int,
    origin: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the answers depend on; ``origin`` is the checkpoint that the model was exported from, if any."""
    has_path = "path" in cfg.model
    return make_manifest(
        benchmarks,
        sampling,
        cfg.evaluation.draws,
        model={
            "path": str(cfg.model.path) if has_path else None,
            "digest": model_digest(cfg.model.path) if has_path else None,
            "checkpoint": origin,
        },
        precision={"dtype": str(cfg.model.get("dtype")), "trainer": str(cfg.trainer.precision)},
        batch_size=batch_size,
        longest_prompt=cfg.evaluation.longest,
        seed=cfg.seed,
    )


def finish(benchmarks: Sequence[Benchmark], folder: Path, draws: int, examples: int) -> dict[str, Any]:
    """Put the ranks' answers together and write the results.

    Raises:
        UserError: not one question could be answered, for want of memory or the like.
    """
    found = read_parts(folder)
    found |= {answer.key: answer for one in benchmarks for answer in failures(one, one.lost)}
    answers = in_order(benchmarks, found, draws)
    if all(answer.failure == NOT_GENERATED for answer in answers):
        raise UserError(
            "the model could not answer a single question; the log says why. Try less video "
            "(data.video.total_pixels), fewer questions at once (data.loader.eval_batch_size), another model"
        )
    metrics = write_results(folder, answers, draws)
    write_report(folder, benchmarks, answers, metrics, examples)
    show(metrics)
    log.info("Everything is in %s", folder)
    return metrics


def run_job(cfg: DictConfig) -> Any:
    """The Hydra job: evaluate; what is wrong is said without a stack."""
    quiet()
    environment = dict(os.environ)
    try:
        return evaluate(cfg)
    except UserError as error:
        print(f"vcr1: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        leave_ranks(environment)


main = command_line(run_job, "evaluate")

if __name__ == "__main__":
    main()
