"""A checkpoint beside its base: what it has gained, and what it has forgotten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vcr1.evaluation.answers import AnswerRecord
from vcr1.evaluation.comparison import compare, difference_table
from vcr1.evaluation.journal import read_answers
from vcr1.evaluation.likelihoods import CONVERSATIONS, Likelihood, compare_likelihoods, likelihoods_in
from vcr1.evaluation.output import SAMPLES, metric_rows, number
from vcr1.evaluation.page import Part, Section
from vcr1.records.files import write_whole

BASE = "base"
"""Folder of the base's own evaluation, in that of the checkpoint."""
FORGETTING = "forgetting.json"


def against_base(
    folder: Path, answers: Sequence[AnswerRecord], likelihoods: Sequence[Likelihood]
) -> dict[str, Any]:
    """Hold a checkpoint's answers against those of its base, and write forgetting.json.

    Args:
        folder: of the checkpoint's evaluation; the base's, which is finished, lies in it.
        answers: of the checkpoint.
        likelihoods: of the conversations, if any were read.

    Returns:
        The content of the file: ``benchmarks``, see :func:`~vcr1.evaluation.comparison.compare`, where the
        first is the base; and ``conversations``, None where none were read.
    """
    base = folder / BASE
    content = {
        "benchmarks": compare(read_answers(base / SAMPLES), answers),
        CONVERSATIONS: compare_likelihoods(likelihoods_in(base), likelihoods) if likelihoods else None,
    }
    write_whole(folder / FORGETTING, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def tables_of(content: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """A table of differences for each benchmark and for the conversations; content as of `against_base`."""
    found = {
        f"{name}: {one['samples']} samples": difference_table(one["metrics"], "base", "checkpoint")
        for name, one in content["benchmarks"].items()
    }
    if (talk := content[CONVERSATIONS]) is not None:
        title = f"{CONVERSATIONS}: {talk['samples']} of both"
        table = difference_table(talk["metrics"], "base", "checkpoint")
        if talk["perplexity"]:
            values = [number(talk["perplexity"][side]) for side in ("first", "second")]
            table.append(["perplexity", *values, "", "", ""])
        else:
            title += ", whose likelihoods per token cannot be compared: the models cut them into other tokens"
        found[title] = table
    return found


def sections_of(metrics: Mapping[str, Any], forgetting: Mapping[str, Any] | None) -> list[Section]:
    """Return what a report says of base and conversations.

    Args:
        metrics: content of metrics.json.
        forgetting: content of forgetting.json; None without a base.
    """
    sections = []
    if forgetting is not None:
        tables = tables_of(forgetting)
        sections.append(Section("Checkpoint against base", [Part(*one) for one in tables.items()]))
    if (talk := metrics.get(CONVERSATIONS)) is not None:
        title = f"{CONVERSATIONS}: {talk['samples']}, with {talk['turns']} answers of {talk['tokens']} tokens"
        rows = [["metric", "value", "95 %"], *map(list, metric_rows(talk["metrics"]))]
        sections.append(Section(title, [Part("Likelihood of their answers", rows)]))
    return sections


def show_against_base(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of differences."""
    console = console or Console(markup=False, highlight=False)
    for title, (header, *rows) in tables_of(content).items():
        table = Table(title, *header[1:])
        for row in rows:
            table.add_row(*row)
        console.print(table)
