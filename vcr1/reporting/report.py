"""What a run leaves behind for people: a table, report.json, report.md and pictures."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table

from vcr1.data import MixtureDataModule, TaskDataModule
from vcr1.errors import VideoError
from vcr1.module import PolicyModule
from vcr1.records import Sample, VideoSource
from vcr1.records.files import write_whole
from vcr1.reporting.evaluation import Evaluation, Scores
from vcr1.reporting.pictures import TimelineEntry, TrackEntry, learning_curve, timelines, tracks

log = logging.getLogger(__name__)

MANY_METRICS = 7
"""More metrics than so many make a table too wide for a screen."""


@dataclass(slots=True)
class Report:
    """Hold the measurements around a training run.

    Attributes:
        before: the held-out samples before training.
        after: the same after training.
        wrong_video: the same questions after training, about other videos.
        baselines: answers that never look; task's name -> baseline -> metrics.
        seconds: stage -> ``wall`` and ``cpu`` (decoding processes included).
    """

    before: Evaluation | None = None
    after: Evaluation | None = None
    wrong_video: Evaluation | None = None
    baselines: dict[str, dict[str, Scores]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Return names of the tasks that were measured."""
        evaluations = (self.before, self.after, self.wrong_video)
        return list(dict.fromkeys(name for one in evaluations if one for name in one.scores))

    def rows(self, task: str) -> dict[str, Scores]:
        """Return lines of a task's table, in order."""
        measured = {"before": self.before, "after": self.after, "wrong video": self.wrong_video}
        rows = {name: one.scores[task] for name, one in measured.items() if one and task in one.scores}
        baselines = self.baselines.get(task, {})
        return rows | {name.replace("_", " "): scores for name, scores in baselines.items()}

    def as_json(self) -> dict[str, Any]:
        """Return content of report.json; the metrics are by task."""
        baselines = {name: dict(scores) for name, scores in self.baselines.items()}
        for name, scores in (self.wrong_video.scores if self.wrong_video else {}).items():
            baselines.setdefault(name, {})["wrong_video"] = scores
        return {
            "before": self.before.scores if self.before else None,
            "after": self.after.scores if self.after else None,
            "baselines": baselines,
            "seconds": self.seconds,
        }


class Clock:
    """Wall and CPU seconds since it was made, this process and its finished children."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> dict[str, float]:
        """``wall`` and ``cpu`` seconds."""
        return {
            "wall": round(time.perf_counter() - self._wall, 2),
            "cpu": round(_cpu_seconds() - self._cpu, 2),
        }


def _cpu_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def evaluate_held_out(
    trainer: L.Trainer, module: PolicyModule, loaders: Any, name: str = "val"
) -> Evaluation:
    """Return greedy answers to all samples of the loaders, over all ranks; logged as ``name/task/...``."""
    module.evaluation = name
    module.judgements = {}  # loaders without samples would leave those of the evaluation before
    try:
        trainer.validate(module, loaders, verbose=False)
    finally:
        module.evaluation = "val"
    return Evaluation(module.summaries(), {name: dict(found) for name, found in module.judgements.items()})


def baselines(data: MixtureDataModule, evaluation: Evaluation) -> dict[str, dict[str, Scores]]:
    """Return what answers score that never look, on the samples that were answered; by task."""
    found = {}
    for name, judgements in evaluation.judgements.items():
        part = data.parts[name]
        answered = [sample for sample in part.samples("val") if sample.id in judgements]
        found[name] = part.task.baselines(part.samples("train"), answered)
    return found


def show_table(report: Report, console: Console | None = None) -> None:
    """Print the report's rows, a table for each task."""
    console = console or Console()
    for task in report.tasks:
        (corner, *columns), *rows = _grid(task, report.rows(task))
        table = Table(corner, *columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _grid(task: str, measured: Mapping[str, Scores]) -> list[list[str]]:
    """Return the cells of a task's table, the heading first: a line for each measurement.

    A task of many metrics has a line for each metric instead, so that the table fits a screen.
    """
    metrics = list(dict.fromkeys(name for scores in measured.values() for name in scores))
    lines = [
        [name, *(f"{scores[metric]:.3f}" if metric in scores else "" for metric in metrics)]
        for name, scores in measured.items()
    ]
    grid = [[f"{task}, held out", *metrics], *lines]
    return grid if len(metrics) <= MANY_METRICS else [list(line) for line in zip(*grid, strict=True)]


def write_report(
    report: Report, folder: Path, data: MixtureDataModule, clips: int, facts: Mapping[str, Any]
) -> None:
    """Write report.json, report.md and the pictures into a run's folder, each whole or not at all.

    With several tasks, each one's pictures bear its name.

    Args:
        report: what was measured.
        folder: the run's folder.
        data: the run's data.
        clips: held-out clips in the picture.
        facts: what else the JSON should say, e.g. the seed.
    """
    write_whole(folder / "report.json", json.dumps(report.as_json() | dict(facts), indent=2) + "\n")
    pictures = []
    for name, part in data.parts.items():
        suffix = f"_{name}" if len(data.parts) > 1 else ""
        task, lines = part.task, report.baselines.get(name, {})
        curve = folder / f"learning_curve{suffix}.png"
        if (folder / "metrics.csv").is_file():
            learning_curve(
                folder / "metrics.csv",
                train=[f"train/{name}/{task.metric_names[0]}"],
                held_out=f"val/{name}/{task.headline}",
                lines={line: scores[task.headline] for line, scores in lines.items()},
                path=curve,
                before=report.before.scores.get(name, {}).get(task.headline) if report.before else None,
            )
            pictures.append(curve.name)
        answers = folder / f"answers{suffix}.png"
        if report.after and clips and _draw_answers(report, answers, part, clips):
            pictures.append(answers.name)
    write_whole(folder / "report.md", _markdown(report, folder.name, pictures))


def _draw_answers(report: Report, path: Path, data: TaskDataModule, clips: int) -> bool:
    """The answers about the first clips whose videos differ; False where a task's answers are not drawn."""
    name, chosen = data.task.name, dict[VideoSource, Sample]()
    samples = data.samples("val") if "val" in data.annotations else []
    for sample in samples:
        if report.after and not _lost(report.after, name, sample):
            chosen.setdefault(sample.source, sample)
        if len(chosen) == clips:
            break
    intervals, tracklets = [], []
    for sample in chosen.values():
        answers: dict[str, Any] = {"truth": sample.target}
        for label, evaluation in (("before", report.before), ("after", report.after)):
            if evaluation:
                answers[label] = evaluation.judgements[name][sample.id].completion.value
        spans = {label: data.task.spans(answer) for label, answer in answers.items()}
        boxes = {label: data.task.boxes(answer) for label, answer in answers.items()}
        if not any(spans.values()) and not boxes["truth"]:
            continue
        try:
            clip = data.reader.clip(sample.source, data.budget, data.grid, frames=data.task.frames)
        except VideoError as error:  # it was there when it was asked about
            log.warning("no picture of sample %s: %s", sample.id, error)
            continue
        if boxes["truth"]:
            tracklets.append(TrackEntry(clip, sample.query, boxes))
        else:
            intervals.append(TimelineEntry(clip, sample.query, spans))
    if intervals:
        timelines(intervals, path)
    if tracklets:
        tracks(tracklets, path)
    return bool(intervals or tracklets)


def _lost(evaluation: Evaluation, task: str, sample: Sample) -> bool:
    judgement = evaluation.judgements.get(task, {}).get(sample.id)
    return judgement is None or judgement.failure == "lost_video"


def _markdown(report: Report, name: str, pictures: list[str]) -> str:
    lines = [f"# {name}", ""]
    for task in report.tasks:
        heading, *rows = ("| " + " | ".join(line) + " |" for line in _grid(task, report.rows(task)))
        lines += [heading, "|---" * (heading.count("|") - 1) + "|", *rows, ""]
    lines += [f"![{picture}]({picture})" for picture in pictures]
    stages = [
        f"- {stage}: {used['wall']:.0f} s, {used['cpu']:.0f} CPU s" for stage, used in report.seconds.items()
    ]
    return "\n".join([*lines, "", *stages]) + "\n"
