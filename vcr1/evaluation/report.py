"""The report of an evaluation: report.md, and report.html with its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from vcr1.evaluation.answers import Answer
from vcr1.evaluation.benchmarks import Benchmark
from vcr1.evaluation.comparison import difference_table
from vcr1.evaluation.figures import chosen_examples, draw_examples, iou_histogram, ious_of, recall_curves
from vcr1.evaluation.journal import write_whole
from vcr1.evaluation.output import metric_rows, number
from vcr1.evaluation.results import by_benchmark

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.2rem .6rem;"
    "text-align:left}img{max-width:100%}td{white-space:pre-wrap;overflow-wrap:anywhere}"
)
_LONGEST = 400
"""Characters of a completion that a table shows; samples.jsonl has all of them."""

Table = list[list[str]]
"""Rows of cells, the heading first."""


@dataclass(slots=True)
class Section:
    """One benchmark: titled tables, and pictures by name."""

    title: str
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)


def write_report(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    answers: Sequence[Answer],
    metrics: Mapping[str, Any],
    examples: int = 3,
    first: Sequence[Section] = (),
) -> None:
    """Write report.md, report.html and the pictures into a run's folder, each whole or not at all.

    Args:
        folder: the run's.
        benchmarks: what was asked.
        answers: all of them.
        metrics: content of metrics.json.
        examples: best, median and worst answers that are shown, so many of each; 0 decodes no video.
        first: what stands before the benchmarks.
    """
    groups = by_benchmark(answers)
    sections = [
        _section(folder, one, groups[one.name], metrics[one.name], examples)
        for one in benchmarks
        if one.name in groups
    ]
    sections = [*first, *sections]
    write_whole(folder / "report.md", markdown(folder.name, sections))
    write_whole(folder / "report.html", html(folder.name, sections))


def _section(
    folder: Path, benchmark: Benchmark, answers: Sequence[Answer], metrics: Mapping[str, Any], examples: int
) -> Section:
    section = Section(f"{benchmark.name}: {metrics['samples']} samples")
    section.tables["Metrics"] = [["metric", "value", "95 %"], *map(list, metric_rows(metrics["metrics"]))]
    if "looks" in metrics:
        section.tables[looks_title(metrics["looks"])] = difference_table(
            metrics["looks"]["metrics"], "first look", "last look"
        )
    if metrics["failures"]:
        rows = [[reason, str(count)] for reason, count in metrics["failures"].items()]
        section.tables["Failures, which score 0"] = [["reason", "answers"], *rows]
    if metrics["categories"]:
        section.tables["Categories"] = category_table(metrics["categories"])
    if ious := ious_of(answers):
        histogram, curve = (folder / f"{name}_{benchmark.name}.png" for name in ("iou", "recall"))
        iou_histogram(ious, histogram)
        recall_curves({benchmark.name: ious}, curve)
        section.pictures += [histogram, curve]
    metric = next(iter(answers[0].scores))
    for kind, chosen in chosen_examples(answers, metric, examples).items() if examples else ():
        if not chosen:
            continue
        rows = [[one.id, number(one.scores[metric]), one.prompt, _shown(one)] for one in chosen]
        section.tables[f"Answers: {kind}"] = [["id", metric, "question", "answer"], *rows]
        path = folder / f"{kind}_{benchmark.name}.png"
        if draw_examples(benchmark, chosen, path):
            section.pictures.append(path)
    return section


def looks_title(looks: Mapping[str, Any]) -> str:
    """What further looks have cost."""
    return (
        f"First look and last: {looks['per_question']:.2f} looks and {looks['vision_tokens']:.1f} vision "
        f"tokens per question"
    )


def category_table(categories: Mapping[str, Any]) -> Table:
    """A line for each category, a column for each metric."""
    names = list(dict.fromkeys(name for one in categories.values() for name in one["metrics"]))
    rows = [
        [category, str(one["samples"])]
        + [number(one["metrics"][name]["value"]) if name in one["metrics"] else "" for name in names]
        for category, one in categories.items()
    ]
    return [["category", "samples", *names], *rows]


def _shown(answer: Answer) -> str:
    text = answer.completion[:_LONGEST]
    return f"{text} ({answer.failure})" if answer.failure else text


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; pictures lie beside it."""
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for heading, table in section.tables.items():
            lines += [f"### {heading}", "", markdown_table(table), ""]
        lines += [f"![{path.stem}]({path.name})" for path in section.pictures]
        lines.append("")
    return "\n".join(lines)


def markdown_table(table: Table) -> str:
    """A Markdown table; text from outside stays within its cell."""

    def row(cells: Sequence[str]) -> str:
        clean = (cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(clean)} |"

    return "\n".join([row(table[0]), "|---" * len(table[0]) + "|", *map(row, table[1:])])


def html(title: str, sections: Sequence[Section]) -> str:
    """The report as one page that needs no other file."""
    parts = [f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"]
    parts.append(f"<h1>{escape(title)}</h1>")
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        for heading, table in section.tables.items():
            parts.append(f"<h3>{escape(heading)}</h3>{html_table(table)}")
        for path in section.pictures:
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(f'<p><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></p>')
    return "\n".join(parts) + "\n"


def html_table(table: Table) -> str:
    """A table of HTML; all text is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table[1:])
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
