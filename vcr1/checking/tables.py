"""A check's report on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_SHOWN = 5
"""Bad files of each reason that are printed; check.json has them all."""


def show_check(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a report: tables, why training would not begin, the first bad videos, the notes."""
    console = console or Console(markup=False, highlight=False)
    for task, splits in report["tasks"].items():
        columns = {split: _cells(facts) for split, facts in splits.items()}
        table = Table(task, *columns)
        for row in dict.fromkeys(row for cells in columns.values() for row in cells):
            table.add_row(row, *(cells.get(row, "") for cells in columns.values()))
        console.print(table)
    for sentence in report["refused"]:
        console.print(f"Training refuses: {sentence}", soft_wrap=True)
    for reason, videos in report["bad"].items():
        console.print(f"{reason}: {len(videos)}", soft_wrap=True)
        for video in videos[:_SHOWN]:
            console.print(f"  {video['message'] or video['path']}", soft_wrap=True)
        if len(videos) > _SHOWN:
            console.print(f"  and {len(videos) - _SHOWN} more, see check.json")
    for note in report["notes"]:
        console.print(f"Note: {note}", soft_wrap=True)


def _cells(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a split as text, by row."""
    cells = {"samples": f"{facts['samples']}"}
    if facts["checked_samples"] != facts["samples"]:
        cells["samples looked at"] = f"{facts['checked_samples']}"
    for change in ("mended", "dropped"):
        for reason, count in facts[change].items():
            cells[f"{change}: {reason.replace('_', ' ')}"] = f"{count}"
    for status, count in facts["videos"].items():
        if count or status == "ok":
            cells[f"videos {status}"] = f"{count}"
    if facts["misfits"]:
        cells["samples that do not fit their video"] = f"{facts['misfits']}"
    if facts["lost_samples"]:
        cells["samples lost in all"] = f"{facts['lost_samples']}"
    for kind, count in facts["warnings"].items():
        cells[f"warning: {kind}"] = f"{count}"
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
