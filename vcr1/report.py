"""What a run leaves behind for people: a table, report.json, report.md and pictures."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table

from vcr1.data import TaskDataModule
from vcr1.module import PolicyModule
from vcr1.pictures import TimelineEntry, learning_curve, timelines
from vcr1.records import Interval, Judgement, Sample
from vcr1.video import read_clip

Scores = dict[str, float]


@dataclass(slots=True)
class Evaluation:
    """One pass over held-out samples: the task's metrics, and each sample's judgement by its id."""

    scores: Scores
    judgements: dict[str, Judgement]

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        return f"{scores} over {len(self.judgements)} held-out samples"


@dataclass(slots=True)
class Report:
    """What was measured around a training run.

    Attributes:
        before: the held-out samples before training.
        after: the same after training.
        wrong_video: the same questions after training, about other videos.
        baselines: answers that never look; name -> metrics.
        seconds: stage -> ``wall`` and ``cpu`` (decoding processes included).
    """

    before: Evaluation | None = None
    after: Evaluation | None = None
    wrong_video: Evaluation | None = None
    baselines: dict[str, Scores] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def rows(self) -> dict[str, Scores]:
        """Lines of the table, in order."""
        measured = {"before": self.before, "after": self.after, "wrong video": self.wrong_video}
        rows = {
            name: evaluation.scores
            for name, evaluation in measured.items()
            if evaluation and evaluation.scores
        }
        return rows | {name.replace("_", " "): scores for name, scores in self.baselines.items()}

    def as_json(self) -> dict[str, Any]:
        """Content of report.json."""
        wrong = {"wrong_video": self.wrong_video.scores} if self.wrong_video else {}
        return {
            "before": self.before.scores if self.before else None,
            "after": self.after.scores if self.after else None,
            "baselines": self.baselines | wrong,
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


def evaluate(trainer: L.Trainer, module: PolicyModule, loader: Any, name: str = "val") -> Evaluation:
    """Greedy answers to all samples of a loader, over all ranks; logged as ``name/...``."""
    module.evaluation = name
    module.judgements = {}  # a loader without samples would leave those of the evaluation before
    try:
        trainer.validate(module, loader, verbose=False)
    finally:
        module.evaluation = "val"
    judgements = dict(module.judgements)
    if not judgements:
        return Evaluation({}, {})
    task = module.validated_task
    ordered = [judgements[id_] for id_ in sorted(judgements)]
    return Evaluation(task.summarise(ordered), judgements)


def show_table(report: Report, console: Console | None = None) -> None:
    """Print the report's rows as a table."""
    rows = report.rows()
    if not rows:
        return
    columns = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    table = Table("held-out samples", *columns)
    for name, scores in rows.items():
        table.add_row(name, *(f"{scores[column]:.3f}" if column in scores else "" for column in columns))
    (console or Console()).print(table)


def write_report(
    report: Report, folder: Path, data: TaskDataModule, clips: int, facts: Mapping[str, Any]
) -> None:
    """Write report.json, report.md and the pictures into a run's folder, each whole or not at all.

    Args:
        report: what was measured.
        folder: the run's folder.
        data: the run's data.
        clips: held-out clips in the picture.
        facts: what else the JSON should say, e.g. the seed.
    """
    _write(folder / "report.json", json.dumps(report.as_json() | dict(facts), indent=2) + "\n")
    pictures = []
    task = data.task
    if (folder / "metrics.csv").is_file():
        learning_curve(
            folder / "metrics.csv",
            train=[f"train/{task.name}/{name}" for name in task.metric_names],
            held_out=f"val/{task.name}/{task.headline}",
            lines={name: scores[task.headline] for name, scores in report.baselines.items()},
            path=folder / "learning_curve.png",
        )
        pictures.append("learning_curve.png")
    if report.after and clips and _draw_timelines(report, folder / "timelines.png", data, clips):
        pictures.append("timelines.png")
    _write(folder / "report.md", _markdown(report, folder.name, pictures))


def _draw_timelines(report: Report, path: Path, data: TaskDataModule, clips: int) -> bool:
    """Timelines of the first clips whose videos differ; False where the task's answers are no intervals."""
    chosen: dict[str, Sample] = {}
    for sample in data.samples("val"):
        if isinstance(sample.target, Interval) and report.after and not _lost(report.after, sample):
            chosen.setdefault(sample.video, sample)
        if len(chosen) == clips:
            break
    entries = []
    for sample in chosen.values():
        intervals: dict[str, Interval | None] = {"truth": sample.target}
        for name, evaluation in (("before", report.before), ("after", report.after)):
            if evaluation:
                value = evaluation.judgements[sample.id].completion.value
                intervals[name] = value if isinstance(value, Interval) else None
        clip = read_clip(sample.video, data.budget, data.grid)
        entries.append(TimelineEntry(clip, sample.query, intervals))
    if entries:
        timelines(entries, path)
    return bool(entries)


def _lost(evaluation: Evaluation, sample: Sample) -> bool:
    judgement = evaluation.judgements.get(sample.id)
    return judgement is None or judgement.failure == "lost_video"


def _markdown(report: Report, name: str, pictures: list[str]) -> str:
    rows = report.rows()
    lines = [f"# {name}", ""]
    if rows:
        columns = list(dict.fromkeys(column for scores in rows.values() for column in scores))
        lines += ["| held-out samples | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row, scores in rows.items():
            cells = [f"{scores[column]:.3f}" if column in scores else "" for column in columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"![{picture}]({picture})" for picture in pictures]
    stages = [
        f"- {stage}: {used['wall']:.0f} s, {used['cpu']:.0f} CPU s" for stage, used in report.seconds.items()
    ]
    return "\n".join([*lines, "", *stages]) + "\n"


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
