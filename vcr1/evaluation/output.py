"""What an evaluation leaves behind: samples.jsonl, metrics.json and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vcr1.data import TaskDataModule
from vcr1.evaluation.answers import AnswerRecord, Key, answer_of
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.results import metrics_text
from vcr1.records import Judgement
from vcr1.records.files import write_whole

SAMPLES = "samples.jsonl"
METRICS = "metrics.json"
HELD_OUT = "held_out.jsonl"
"""The answers of a training run after training, in the form of `SAMPLES`."""


def in_order(
    benchmarks: Sequence[Benchmark], answers: Mapping[Key, AnswerRecord], draws: int = 1
) -> list[AnswerRecord]:
    """Return all answers in the order of the benchmarks and of their annotations, each once.

    Args:
        benchmarks: whose samples count.
        answers: of all of them.
        draws: completions of each sample.

    Raises:
        KeyError: a sample has no answer.
    """
    found = []
    for one in benchmarks:
        ids = [sample.id for sample in one.samples] + [lost.sample_id for lost in one.lost]
        for id_ in ids:
            found.append(answers[one.name, id_, 0])
            more = ((one.name, id_, draw) for draw in range(1, draws))
            found += [answers[key] for key in more if key in answers]
    return found


def write_results(
    folder: Path,
    answers: Sequence[AnswerRecord],
    draws: int = 1,
    more: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write samples.jsonl and metrics.json, each whole or not at all; ``more`` is what is measured besides.

    Returns:
        The content of metrics.json.
    """
    write_whole(folder / SAMPLES, "".join(answer.line() for answer in answers))
    text = metrics_text(answers, draws, more)
    write_whole(folder / METRICS, text)
    content: dict[str, Any] = json.loads(text)
    return content


def write_held_out(
    folder: Path, judged: Mapping[str, Mapping[str, Judgement]], parts: Mapping[str, TaskDataModule]
) -> None:
    """Write a training run's held-out answers as those of an evaluation, whole or not at all.

    Args:
        folder: the run's.
        judged: task's name -> id of a sample -> its judgement.
        parts: task's name -> its data.
    """
    lines = []
    for name, judgements in judged.items():
        task = parts[name].task
        samples = {sample.id: sample for sample in parts[name].samples("val")}
        ids = [id_ for id_ in samples if id_ in judgements]
        ids += [id_ for id_ in judgements if id_ not in samples]
        lines += [answer_of(name, task, judgements[id_], samples.get(id_)).line() for id_ in ids]
    write_whole(folder / HELD_OUT, "".join(lines))


def show_metrics(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a table for each benchmark."""
    console = console or Console(markup=False, highlight=False)
    for name, content in metrics.items():
        table = Table(f"{name}, {content['samples']} samples", "", "95 %")
        for row in metric_rows(content["metrics"]):
            table.add_row(*row)
        console.print(table)
        if (looks := content.get("looks")) is not None:
            cost = (
                f"{looks['per_question']:.2f} looks, {looks['vision_tokens']:.1f} vision tokens per question"
            )
            gains = [
                f"{metric} {number(one['first'])} to {number(one['second'])}"
                for metric, one in looks["metrics"].items()
            ]
            console.print(f"{cost}; from the first look to the last: {', '.join(gains)}", soft_wrap=True)
        if content["failures"]:
            counts = ", ".join(f"{reason} {count}" for reason, count in content["failures"].items())
            console.print(f"failures, which score 0: {counts}", soft_wrap=True)


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and interval of each metric as text."""
    return [
        (name, number(one["value"]), f"{number(one['low'])} to {number(one['high'])}")
        for name, one in metrics.items()
    ]


def number(value: float | None) -> str:
    """Return three decimals; a dash for what is no number."""
    return "–" if value is None else f"{value:.3f}"
