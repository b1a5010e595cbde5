"""Runs side by side: ``python -m vcr1.compare A B ... [--out FOLDER]``.

A, B, ... are folders of evaluations (of `vcr1.evaluate` or `vcr1.score`), or all of training runs. The
others are held against the first. Printed, and written with pictures to ``compare.json`` and ``compare.md``.
Exit status: 0 when it is done, 2 where a folder cannot be compared.
"""

from __future__ import annotations

from vcr1.usage import show_usage

if __name__ == "__main__":  # before anything heavy is loaded
    show_usage("compare", __doc__)

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcr1.config.entry import exit_on_user_error
from vcr1.errors import UserError
from vcr1.evaluation import HELD_OUT, SAMPLES, by_benchmark, number, read_answers
from vcr1.evaluation.comparison import compare, difference_table
from vcr1.evaluation.figures import ious_of, learning_curves, recall_curves
from vcr1.evaluation.likelihoods import CONVERSATIONS, compare_likelihoods, likelihoods_in
from vcr1.evaluation.report import Table, markdown_table
from vcr1.records.files import write_whole

TRAINED = "report.json"
CURVES = ("train/reward", "train/loss")
BETWEEN_SAMPLES = (
    "Intervals and p-values are over the held-out samples, for these very runs; runs of another seed may "
    "differ by more."
)
_SHOWN = 10


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Return short, distinct names of runs: the folders' names, or their paths where these are alike."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def compare_runs(folders: Sequence[Path], out: Path) -> str:
    """Compare runs and write what was found.

    Args:
        folders: two or more, of one kind.
        out: where to write.

    Returns:
        The comparison as Markdown.

    Raises:
        UserError: a folder that holds no results, kinds that differ, or nothing in common.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("name two or more folders, each once: python -m vcr1.compare A B")
    labels = labels_of(folders)
    if all((folder / SAMPLES).is_file() for folder in folders):
        content, text = _evaluations(dict(zip(labels, folders, strict=True)), out)
    elif all((folder / TRAINED).is_file() for folder in folders):
        content, text = _trainings(dict(zip(labels, folders, strict=True)), out)
    else:
        listed = ", ".join(
            f"{folder} ({SAMPLES if (folder / SAMPLES).is_file() else TRAINED})"
            if (folder / SAMPLES).is_file() or (folder / TRAINED).is_file()
            else f"{folder} (no results)"
            for folder in folders
        )
        raise UserError(f"compare evaluations (with {SAMPLES}) or training runs (with {TRAINED}): {listed}")
    write_whole(out / "compare.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_whole(out / "compare.md", text)
    return text


def _evaluations(runs: Mapping[str, Path], out: Path) -> tuple[dict[str, Any], str]:
    """Return every other evaluation against the first, sample by sample."""
    content, lines = _sample_by_sample({label: folder / SAMPLES for label, folder in runs.items()}, out)
    return content, "\n".join(lines)


def _sample_by_sample(files: Mapping[str, Path], out: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the answers of every other file against those of the first; lines of Markdown, and pictures.

    Raises:
        UserError: a file that cannot be read, or nothing in common.
    """
    answers = {label: read_answers(file) for label, file in files.items()}
    first, *others = answers
    content = {label: compare(answers[first], answers[label]) for label in others}
    heard = {label: likelihoods_in(file.parent) for label, file in files.items()}
    for label in others:
        if heard[first] and heard[label]:
            content[label][CONVERSATIONS] = compare_likelihoods(heard[first], heard[label])
    if not any(content.values()):
        raise UserError(f"{', '.join(files)}: no benchmark in common")
    lines: list[str] = []
    for label, benchmarks in content.items():
        lines += [f"# {label} against {first}", ""]
        for name, found in benchmarks.items():
            lines += [*_benchmark_lines(name, found, first, label), ""]
    for name in dict.fromkeys(name for found in content.values() for name in found):
        ious = {label: ious_of(by_benchmark(own).get(name, [])) for label, own in answers.items()}
        if all(ious.values()):
            out.mkdir(parents=True, exist_ok=True)
            recall_curves(ious, out / f"recall_{name}.png")
            lines += [f"![recall_{name}](recall_{name}.png)", ""]
    return {"first": first, "others": content}, lines


def _benchmark_lines(name: str, found: Mapping[str, Any], first: str, second: str) -> list[str]:
    lines = [f"## {name}: {found['samples']} common samples", ""]
    for label, count in ((first, found["only_first"]), (second, found["only_second"])):
        if count:
            lines += [f"{count} samples of {label} alone are left out.", ""]
    lines += [markdown_table(difference_table(found["metrics"], first, second)), ""]
    for category, one in found["categories"].items():
        table = markdown_table(difference_table(one["metrics"], first, second))
        lines += [f"### {category}: {one['samples']} samples", "", table, ""]
    flips = found["flips"]
    if flips["metric"]:
        lines.append(f"Flips by {flips['metric']}: {_listed('gained', flips)}; {_listed('lost', flips)}.")
    return lines


def _listed(kind: str, flips: Mapping[str, Any]) -> str:
    ids = flips[kind]
    more = ", …" if len(ids) > _SHOWN else ""
    return f"{len(ids)} {kind}" + (f" ({', '.join(ids[:_SHOWN])}{more})" if ids else "")


def _trainings(runs: Mapping[str, Path], out: Path) -> tuple[dict[str, Any], str]:
    """The held-out scores after training, how sure their differences are, and the curves of all runs."""
    scores = {label: _scores_after(folder / TRAINED) for label, folder in runs.items()}
    first = next(iter(runs))
    names = [name for name in scores[first] if all(name in own for own in scores.values())]
    lines = ["# Training runs", "", markdown_table(_scores_table(scores, names)), ""]
    content: dict[str, Any] = {"first": first, "after": scores, "others": None}
    kept = {label: folder / HELD_OUT for label, folder in runs.items()}
    without = [label for label, file in kept.items() if not file.is_file()]
    if without:
        lines += [
            f"No significance: no {HELD_OUT} in {', '.join(without)}, which was trained without "
            f"`report.after` or by an earlier version.",
            "",
        ]
    else:
        paired, text = _sample_by_sample(kept, out)
        content["others"] = paired["others"]
        lines += [BETWEEN_SAMPLES, "", *text]
    logs = {label: folder / "metrics.csv" for label, folder in runs.items()}
    logs = {label: path for label, path in logs.items() if path.is_file()}
    held_out = [f"val/{name}" for name in names]
    out.mkdir(parents=True, exist_ok=True)
    for column in (*CURVES, *held_out) if logs else ():
        path = out / f"{column.replace('/', '_')}.png"
        if learning_curves(logs, column, path):
            lines.append(f"![{column}]({path.name})")
    return content, "\n".join(lines) + "\n"


def _scores_table(scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> Table:
    """Return a row for each metric, a column for each run, with the difference from the first."""
    first, *others = scores
    header = ["metric", first, *(f"{label} (difference)" for label in others)]
    rows = [
        [name, number(scores[first][name])]
        + [
            f"{number(scores[label][name])} ({scores[label][name] - scores[first][name]:+.3f})"
            for label in others
        ]
        for name in names
    ]
    return [header, *rows]


def _scores_after(path: Path) -> dict[str, float]:
    """``task/metric`` -> score after training."""
    try:
        after = json.loads(path.read_text(encoding="utf-8"))["after"]
        return {f"{task}/{name}": float(one) for task, own in after.items() for name, one in own.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: holds no scores after training ({error!r})") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vcr1.compare",
        description="Hold runs against the first of them: metrics with their differences, 95 % intervals "
        "and p-values by a bootstrap over paired samples, by category too; the samples that one run solves "
        "and the other does not; curves of all runs in one picture.",
        epilog="Example: python -m vcr1.compare runs/evaluate-A runs/evaluate-B --out comparison",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="RUN",
        type=Path,
        help="two or more folders, all of vcr1.evaluate and vcr1.score, or all of vcr1.train",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        help="folder for compare.md, compare.json and the pictures (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    with exit_on_user_error():
        print(compare_runs(given.folders, given.out))


if __name__ == "__main__":
    main()
