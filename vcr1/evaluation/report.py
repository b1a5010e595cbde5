"""The report of an evaluation: report.md, and report.html with its pictures inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcr1.evaluation.answers import AnswerRecord
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.comparison import difference_table
from vcr1.evaluation.figures import chosen_examples, draw_examples, iou_histogram, ious_of, recall_curves
from vcr1.evaluation.output import metric_rows, number
from vcr1.evaluation.page import Part, Picture, Section, Table, html, markdown, markdown_table
from vcr1.evaluation.results import by_benchmark
from vcr1.records.files import write_whole
from vcr1.video import GuardedReader

__all__ = ["Table", "category_table", "markdown_table", "write_evaluation_report"]

_LONGEST = 600
"""Characters of a text that the report shows; samples.jsonl has all of them."""


def write_evaluation_report(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    answers: Sequence[AnswerRecord],
    metrics: Mapping[str, Any],
    examples: int = 3,
    first: Sequence[Section] = (),
    reader: GuardedReader | None = None,
) -> None:
    """Write report.md, report.html and the pictures into a run's folder, each whole or not at all.

    Args:
        folder: the run's.
        benchmarks: what was asked.
        answers: all of them.
        metrics: content of metrics.json.
        examples: best, median and worst answers that are shown, so many of each; 0 decodes no video.
        first: what stands before the benchmarks.
        reader: decodes the videos of the examples; None for one with the usual limits.
    """
    reader = reader or GuardedReader()
    groups = by_benchmark(answers)
    sections = [
        _section(folder, one, groups[one.name], metrics[one.name], examples, reader)
        for one in benchmarks
        if one.name in groups
    ]
    sections = [*first, *sections]
    title = f"Evaluation {folder.name}"
    write_whole(folder / "report.md", markdown(title, sections))
    write_whole(folder / "report.html", html(title, sections))


def _section(
    folder: Path,
    benchmark: Benchmark,
    answers: Sequence[AnswerRecord],
    metrics: Mapping[str, Any],
    examples: int,
    reader: GuardedReader,
) -> Section:
    parts = [Part("Metrics", [["metric", "value", "95 %"], *map(list, metric_rows(metrics["metrics"]))])]
    if "looks" in metrics:
        gains = difference_table(metrics["looks"]["metrics"], "first look", "last look")
        parts.append(Part(looks_title(metrics["looks"]), gains))
    if metrics["failures"]:
        rows = [[reason, str(count)] for reason, count in metrics["failures"].items()]
        parts.append(Part("Failures, which score 0", [["reason", "answers"], *rows]))
    if metrics["categories"]:
        parts.append(Part("Categories", category_table(metrics["categories"])))
    if ious := ious_of(answers):
        parts.append(_charts(folder, benchmark.name, ious))
    metric = next(iter(answers[0].scores))
    for kind, chosen in chosen_examples(answers, metric, examples).items() if examples else ():
        if chosen:
            parts.append(_examples(folder, benchmark, kind, chosen, reader))
    return Section(f"{benchmark.name}: {metrics['samples']} samples", parts)


def _charts(folder: Path, name: str, ious: Sequence[float]) -> Part:
    """Return how good the answers are, as two charts."""
    histogram, curve = (folder / f"{kind}_{name}.png" for kind in ("iou", "recall"))
    iou_histogram(ious, histogram)
    recall_curves({name: ious}, curve)
    pictures = [
        Picture(histogram, "How many answers have which IoU"),
        Picture(curve, "R@k: the share of answers with an IoU of at least k"),
    ]
    return Part("IoU", pictures=pictures, charts=True)


def _examples(
    folder: Path, benchmark: Benchmark, kind: str, chosen: Sequence[AnswerRecord], reader: GuardedReader
) -> Part:
    """Return some answers with their frames."""
    metric = next(iter(chosen[0].scores))
    rows = [
        [one.id, number(one.scores[metric]), _cut(one.prompt), _shown(one), _value(one.target)]
        for one in chosen
    ]
    part = Part(f"Answers: {kind}", [["id", metric, "question", "answer", "truth"], *rows], cards=True)
    path = folder / f"{kind}_{benchmark.name}.png"
    if draw_examples(benchmark, chosen, path, reader):
        part.pictures.append(Picture(path, f"The {kind} answers, in the same order"))
    return part


def looks_title(looks: Mapping[str, Any]) -> str:
    """Return what further looks have cost."""
    return (
        f"First look and last: {looks['per_question']:.2f} looks and {looks['vision_tokens']:.1f} vision "
        f"tokens per question"
    )


def category_table(categories: Mapping[str, Any]) -> Table:
    """Return a line for each category, a column for each metric."""
    names = list(dict.fromkeys(name for one in categories.values() for name in one["metrics"]))
    rows = [
        [category, str(one["samples"])]
        + [number(one["metrics"][name]["value"]) if name in one["metrics"] else "" for name in names]
        for category, one in categories.items()
    ]
    return [["category", "samples", *names], *rows]


def _shown(answer: AnswerRecord) -> str:
    text = _cut(answer.completion)
    return f"{text} ({answer.failure})" if answer.failure else text


def _value(value: Any) -> str:
    """Return the truth as JSON; nothing where it was lost with its video."""
    if value is None or isinstance(value, str):
        return _cut(value or "")
    return _cut(json.dumps(_rounded(value), ensure_ascii=False))


def _rounded(value: Any) -> Any:
    """Return numbers with as many digits as one reads."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {name: _rounded(one) for name, one in value.items()} if isinstance(value, dict) else value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
