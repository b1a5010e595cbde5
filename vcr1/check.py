"""Look at the data before training: ``python -m vcr1.check task=grounding data=charades_sta``.

Takes the overrides of the training run, reads the same annotations and decodes every video as the run would;
needs no GPU and no weights. What it finds is printed, and written to ``check.json`` in the run's folder.
Exit status: 0 where every video is usable, 1 where some are not, 2 where the check itself cannot be done.
"""

from __future__ import annotations

import os

# Before torch starts its threads: idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import logging
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vcr1.config import build_budget, build_task, command_line, read_annotations
from vcr1.errors import UserError
from vcr1.policy import PromptEncoder, check_weights, load_encoder
from vcr1.readers import Annotations
from vcr1.records import GroundedAnswer, Interval, Prompt, Sample, VideoClip
from vcr1.tasks import Task
from vcr1.video import PatchGrid
from vcr1.video.journal import Journal
from vcr1.video.probing import BAD, Outcome, Trial, probe_all

log = logging.getLogger(__name__)

Spread = dict[str, float]
"""``min``, ``median``, ``mean``, ``p95`` and ``max`` of some numbers."""

_SHOWN = 5
"""Bad files of each reason that are printed; check.json has them all."""


def check(cfg: DictConfig) -> dict[str, Any]:
    """Read the annotations of the selected tasks and try all their videos.

    Returns:
        The content of check.json: ``usable``; ``notes``; ``tasks``, by task and split; ``bad``, the videos
        that are not usable by reason, each with its error and the number of samples that it costs.

    Raises:
        UserError: annotations, a setting or the journal cannot be used.
    """
    settings = cfg.check
    _check_settings(settings)
    annotations = read_annotations(cfg)
    encoder, notes = _encoder(cfg)
    grid = encoder.grid if encoder else PatchGrid()
    tasks = {name: build_task(cfg, name) for name in annotations}
    trials = {
        (name, split): _plan(cfg, tasks[name], found, grid)
        for name, splits in annotations.items()
        for split, found in splits.items()
    }
    pairs = [pair for part in trials.values() for pair in part]
    outcomes = _try_all([trial for _, trial in pairs], settings)
    decodable = all(outcome.status == "ok" for outcome in outcomes.values())
    complete = not any(found.without_video for splits in annotations.values() for found in splits.values())
    report: dict[str, Any] = {"usable": decodable and complete}
    report |= {"notes": notes, "tasks": {name: {} for name in tasks}}
    for (name, split), part in trials.items():
        facts = _facts(annotations[name][split], part, outcomes)
        facts["tokens"] = _tokens(tasks[name], part, outcomes, encoder)
        report["tasks"][name][split] = facts
    return report | {"bad": _bad([trial for _, trial in pairs], outcomes) | _without_video(annotations)}


def _check_settings(settings: DictConfig) -> None:
    """Raise UserError for a setting that is not a number that makes sense."""
    for name, kind, least in (("workers", int, 1), ("timeout", (int, float), 0.1), ("limit", int, 1)):
        value = settings[name]
        if name == "limit" and value is None:
            continue
        if not isinstance(value, kind) or not least <= value < math.inf:
            raise UserError(f"check.{name}={value}: must be a number of at least {least}")


def _plan(
    cfg: DictConfig, task: Task, annotations: Annotations, grid: PatchGrid
) -> list[tuple[Sample, Trial]]:
    """The samples to look at, each with the decoding that training would do."""
    budget, decoder = build_budget(cfg, task.name), cfg.data.loader.decoder
    samples = annotations.samples[: cfg.check.limit]
    return [(sample, Trial(sample.source, budget, grid, decoder, task.frames)) for sample in samples]


def _encoder(cfg: DictConfig) -> tuple[PromptEncoder | None, list[str]]:
    """The model's own encoder; or None, and a note that says why."""
    try:
        if "path" not in cfg.model:
            raise UserError("the model has no path to take a processor from")
        check_weights(cfg.model.path)  # fails at once where there is nothing; the loading would try for long
        return load_encoder(cfg.model.path), []
    except UserError as error:
        return None, [f"the text of the prompts is not counted: {error}"]


def _try_all(trials: Iterable[Trial], settings: DictConfig) -> dict[Trial, Outcome]:
    """The outcome of each trial: from the journal where it is known, else by decoding.

    Raises:
        UserError: the configuration of a trial makes no sense, or the journal cannot be written.
    """
    unique = list(dict.fromkeys(trials))
    with Journal(settings.journal, settings.timeout) as journal:
        outcomes = {trial: known for trial in unique if (known := journal.find(trial)) is not None}
        pending = [trial for trial in unique if trial not in outcomes]
        log.info("%d videos: %d known from %s", len(unique), len(outcomes), settings.journal)
        # Without a thread that redraws it: the workers are forked.
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            bar = progress.add_task("decoding", total=len(pending))
            for trial, outcome in probe_all(pending, settings.workers, settings.timeout):
                if outcome.status == "refused":
                    raise UserError(outcome.message)
                outcomes[trial] = outcome
                journal.add(trial, outcome)
                progress.update(bar, advance=1, refresh=True)
    return outcomes


def _facts(
    annotations: Annotations, part: Sequence[tuple[Sample, Trial]], outcomes: Mapping[Trial, Outcome]
) -> dict[str, Any]:
    """What there is to say of a split, but for its tokens."""
    videos = {trial: outcomes[trial] for _, trial in part}
    counts = Counter(outcome.status for outcome in videos.values())
    return {
        "source": annotations.source,
        "samples": len(annotations.samples),
        "mended": dict(sorted(annotations.mended.items())),
        "dropped": dict(sorted(annotations.dropped.items())),
        "checked_samples": len(part),
        "lost_samples": sum(outcomes[trial].status != "ok" for _, trial in part),
        "videos": {status: counts[status] for status in ("ok", *BAD)},
        "video_seconds": spread(outcome.duration for outcome in videos.values() if outcome.status == "ok"),
        "target_seconds": spread(length for sample, _ in part for length in _lengths(sample.target)),
    }


def _lengths(target: Any) -> list[float]:
    """Lengths in seconds of the spans of time in a target; of another kind of target none."""
    if isinstance(target, GroundedAnswer):
        target = target.intervals
    spans = target if isinstance(target, tuple) else (target,)
    return [span.length for span in spans if isinstance(span, Interval)]


def _tokens(
    task: Task,
    part: Sequence[tuple[Sample, Trial]],
    outcomes: Mapping[Trial, Outcome],
    encoder: PromptEncoder | None,
) -> dict[str, Spread | None]:
    """Lengths of the prompts whose video is usable: its tokens, those of the text and the chat, and both."""
    usable = [(sample, trial) for sample, trial in part if outcomes[trial].status == "ok"]
    vision = [_vision_tokens(outcomes[trial], trial.grid) for _, trial in usable]
    if encoder is None:
        return {"vision": spread(vision), "text": None, "prompt": None}
    around = _tokens_around(encoder)
    text = [encoder(task.prompt(sample), None)["input_ids"].shape[1] + around for sample, _ in usable]
    both = [sum(pair) for pair in zip(vision, text, strict=True)]
    return {"vision": spread(vision), "text": spread(text), "prompt": spread(both)}


def _vision_tokens(outcome: Outcome, grid: PatchGrid) -> int:
    """Tokens of a clip: one for each cell of the grid."""
    return (
        (outcome.frames // grid.temporal) * (outcome.height // grid.spatial) * (outcome.width // grid.spatial)
    )


def _tokens_around(encoder: PromptEncoder) -> int:
    """Tokens that a video adds to a prompt beside its own, such as those that open and close it."""
    grid = encoder.grid
    blank = torch.zeros(grid.temporal, 3, grid.spatial, grid.spatial, dtype=torch.uint8)
    clip = VideoClip(blank, tuple(range(grid.temporal)), (0.0,) * grid.temporal, 1.0, grid.temporal)
    lengths = [encoder(Prompt("When?"), shown)["input_ids"].shape[1] for shown in (clip, None)]
    return int(lengths[0] - lengths[1]) - 1


def spread(values: Iterable[float]) -> Spread | None:
    """How numbers are spread; None where there are none. ``p95``: the least that 95 % do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
        "max": ordered[-1],
    }


def _bad(trials: Sequence[Trial], outcomes: Mapping[Trial, Outcome]) -> dict[str, list[dict[str, Any]]]:
    """The videos that are not usable, by reason; those first that cost the most samples."""
    samples = Counter(trials)
    bad: dict[str, list[dict[str, Any]]] = {reason: [] for reason in BAD}
    for trial, count in samples.most_common():
        outcome = outcomes[trial]
        if outcome.status != "ok":
            source = {name: value for name, value in asdict(trial.source).items() if value}
            bad[outcome.status].append({**source, "samples": count, "message": outcome.message})
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


def show(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a report: a table for each task, the first bad videos, the notes."""
    console = console or Console(markup=False, highlight=False)
    for task, splits in report["tasks"].items():
        columns = {split: _cells(facts) for split, facts in splits.items()}
        table = Table(task, *columns)
        for row in dict.fromkeys(row for cells in columns.values() for row in cells):
            table.add_row(row, *(cells.get(row, "") for cells in columns.values()))
        console.print(table)
    for reason, videos in report["bad"].items():
        console.print(f"{reason}: {len(videos)}", soft_wrap=True)
        for video in videos[:_SHOWN]:
            console.print(f"  {video['message'] or video['path']}", soft_wrap=True)
        if len(videos) > _SHOWN:
            console.print(f"  and {len(videos) - _SHOWN} more, see check.json")
    for note in report["notes"]:
        console.print(f"Note: {note}", soft_wrap=True)


def _cells(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a split as text, by row."""
    cells = {"samples": f"{facts['samples']}"}
    if facts["checked_samples"] != facts["samples"]:
        cells["samples looked at"] = f"{facts['checked_samples']}"
    for change in ("mended", "dropped"):
        for reason, count in facts[change].items():
            cells[f"{change}: {reason.replace('_', ' ')}"] = f"{count}"
    for status, count in facts["videos"].items():
        if count or status == "ok":
            cells[f"videos {status}"] = f"{count}"
    if facts["lost_samples"]:
        cells["samples lost with their video"] = f"{facts['lost_samples']}"
    spreads = {
        "seconds of a video": (facts["video_seconds"], 1),
        "seconds of a target": (facts["target_seconds"], 1),
        **{f"tokens of {part}": (tokens, 0) for part, tokens in facts["tokens"].items()},
    }
    for name, (found, digits) in spreads.items():
        if found is not None:
            shown = ("min", "median", "p95" if name.startswith("tokens") else "mean", "max")
            label = f"{name}: {' / '.join(shown)}"
            cells[label] = " / ".join(f"{found[key]:.{digits}f}" for key in shown)
    return cells


def run_job(cfg: DictConfig) -> None:
    """The Hydra job: check, print, write; what is wrong is said without a stack."""
    try:
        report = check(cfg)
    except UserError as error:
        print(f"vcr1: {error}", file=sys.stderr)
        sys.exit(2)
    path = Path(cfg.run_dir) / "check.json"
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)
    show(report)
    log.info("Everything is in %s", path)
    if not report["usable"]:
        sys.exit(1)


main = command_line(run_job, "check")

if __name__ == "__main__":
    main()
