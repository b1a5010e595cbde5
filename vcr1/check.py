"""Look at the data before training: ``python -m vcr1.check task=grounding data=charades_sta``.

Takes the overrides of the training run, reads the same annotations, decodes every video as the run would, and
holds the pictures against their times and the annotations against the videos, with the functions that
training itself judges by. Needs no GPU and no weights. What it finds is printed, and written to
``check.json`` in the run's folder. Exit status: 0 where every video and sample is usable, 1 where some are
not, 2 where the check itself cannot be done.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("check", __doc__)

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vcr1.checking import Tried, check_settings, facts_of, refusals, show_check, spread, try_all
from vcr1.config.entry import command_line, exit_on_user_error
from vcr1.config.sources import build_budget, build_task, loader_settings, read_annotations
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, check_weights, load_encoder
from vcr1.readers import Annotations
from vcr1.records import Sample
from vcr1.records.files import write_whole
from vcr1.tasks import Task
from vcr1.video import PatchGrid
from vcr1.video.probing import BAD, Trial

__all__ = ["check", "main", "run_job", "show_check", "spread"]

log = logging.getLogger(__name__)

MISFIT = "does not fit its video"
"""Reason of samples whose times lie behind the end of their video."""


def check(cfg: DictConfig) -> dict[str, Any]:
    """Read the annotations of the selected tasks and try all their videos.

    Returns:
        The content of check.json: ``usable``; ``notes``; ``refused``, why training would not begin;
        ``tasks``, by task and split; ``bad``, the videos and samples that are not usable by reason, each with
        its error and the number of samples that it costs.

    Raises:
        UserError: annotations, a setting or the journal cannot be used.
    """
    check_settings(cfg.check)
    limits = loader_settings(cfg).limits
    annotations = read_annotations(cfg)
    encoder, notes = _encoder(cfg)
    grid = encoder.grid if encoder else PatchGrid()
    tasks = {name: build_task(cfg, name) for name in annotations}
    planned = {
        (name, split): _plan(cfg, tasks[name], found, grid)
        for name, splits in annotations.items()
        for split, found in splits.items()
    }
    outcomes = try_all([trial for part in planned.values() for _, trial in part], cfg.check, limits)
    tried = {
        place: [Tried(tasks[place[0]], sample, trial, outcomes[trial]) for sample, trial in part]
        for place, part in planned.items()
    }
    bad = _bad([one for part in tried.values() for one in part]) | _without_video(annotations)
    refused = refusals(cfg, tasks, annotations)
    report: dict[str, Any] = {"usable": not bad and not refused, "notes": notes, "refused": refused}
    report["tasks"] = {name: {} for name in tasks}
    for (name, split), part in tried.items():
        report["tasks"][name][split] = facts_of(annotations[name][split], part, tasks[name], encoder)
    return report | {"bad": bad}


def _plan(
    cfg: DictConfig, task: Task, annotations: Annotations, grid: PatchGrid
) -> list[tuple[Sample, Trial]]:
    """Return the samples to look at, each with the decoding that training would do."""
    budget, decoder, compare = build_budget(cfg, task.name), cfg.data.loader.decoder, cfg.check.compare
    samples = annotations.samples[: cfg.check.limit]
    return [(one, Trial(one.source, budget, grid, decoder, task.frames, compare)) for one in samples]


def _encoder(cfg: DictConfig) -> tuple[PromptEncoder | None, list[str]]:
    """Return the model's own encoder; or None, and a note that says why."""
    try:
        if "path" not in cfg.model:
            raise UserError("the model has no path to take a processor from")
        check_weights(cfg.model.path)  # fails at once where there is nothing; the loading would try for long
        return load_encoder(cfg.model.path), []
    except UserError as error:
        return None, [f"the text of the prompts is not counted: {error}"]


def _bad(tried: Sequence[Tried]) -> dict[str, list[dict[str, Any]]]:
    """The videos that are not usable, by reason, those first that cost the most samples; and the misfits."""
    samples = Counter(one.trial for one in tried)
    outcomes = {one.trial: one.outcome for one in tried}
    bad: dict[str, list[dict[str, Any]]] = {reason: [] for reason in (*BAD, MISFIT)}
    for trial, count in samples.most_common():
        outcome = outcomes[trial]
        if outcome.status != "ok":
            source = {name: value for name, value in asdict(trial.source).items() if value}
            bad[outcome.status].append({**source, "samples": count, "message": outcome.message})
    for one in tried:
        if one.misfit is not None:
            row = {"path": one.sample.source.path, "id": one.sample.id, "samples": 1}
            bad[MISFIT].append({**row, "message": f"sample {one.sample.id}: {one.misfit}"})
    return {reason: videos for reason, videos in bad.items() if videos}


def _without_video(
    annotations: Mapping[str, Mapping[str, Annotations]],
) -> dict[str, list[dict[str, Any]]]:
    """The rows whose videos the readers did not find, or could not read, so that they are no samples."""
    rows = [
        {"path": row, "samples": 1, "message": f"{name} {split}: {row}"}
        for name, splits in annotations.items()
        for split, found in splits.items()
        for row in found.without_video
    ]
    return {"left out by the reader": rows} if rows else {}


def run_job(cfg: DictConfig) -> None:
    """Check, print and write, as a Hydra job."""
    with exit_on_user_error():
        report = check(cfg)
    path = Path(cfg.run_dir) / "check.json"
    write_whole(path, json.dumps(report, indent=2) + "\n")
    show_check(report)
    log.info("Everything is in %s", path)
    if not report["usable"]:
        sys.exit(1)


main = command_line(run_job, "check")

if __name__ == "__main__":
    main()
