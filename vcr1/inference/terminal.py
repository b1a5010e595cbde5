"""What a prediction says on the terminal: an answer as it grows, or one line for each question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from vcr1.inference.answers import Answer
from vcr1.inference.questions import Failure
from vcr1.inference.streaming import NO_CHARACTER
from vcr1.records import json_value
from vcr1.tasks import FREE


def remarks(answer: Answer) -> list[str]:
    """Return the lines beside an answer's text: its looks, its value, and whether it is cut off."""
    lines = []
    for number, look in enumerate(answer.looks if answer.stopped else ()):
        spans = ", ".join(f"{span.start:.1f} to {span.end:.1f}" for span in look.intervals) or "no time"
        lines.append(
            f"look {number}: {look.part.start:.1f} to {look.part.end:.1f} s, {look.frames} frames, "
            f"{look.vision_tokens} vision tokens: {spans}"
        )
    if answer.question.task is not FREE:
        reason = answer.failure
        value = json_value(answer.value, reasons=False)
        lines.append(f"{_rounded(value)}" if reason is None else f"cannot be read: {reason}")
    if answer.question.truth is not None:
        scores = "".join(f"; {name} {value:.3f}" for name, value in (answer.scores or {}).items())
        lines.append(f"truth: {_rounded(json_value(answer.question.truth.target, reasons=False))}{scores}")
    elif answer.question.unused is not None:
        lines.append(answer.question.unused)
    if answer.truncated:
        lines.append("cut off at rollout.max_new_tokens")
    return lines


def _rounded(value: Any) -> Any:
    """Return numbers with three decimals: times of a part that began anywhere have fifteen."""
    match value:
        case float():
            return round(value, 3)
        case list():
            return [_rounded(one) for one in value]
        case dict():
            return {name: _rounded(one) for name, one in value.items()}
    return value


class Terminal:
    """Prints answers to one place and failures to another.

    Args:
        out: of answers; standard output where None.
        err: of failures; standard error where None.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._streamed = ""

    def stream(self, text: str) -> None:
        """Print what is new of a text that grows."""
        text = text.rstrip(NO_CHARACTER)
        self._print(text[len(self._streamed) :])
        self._streamed = text

    def show(self, found: Answer | Failure) -> None:
        """Print an answer, or as much as has not been streamed; or a failure."""
        if isinstance(found, Failure):
            print(f"{found.id}: {found.reason}", file=self.err, flush=True)
            return
        if self._streamed:
            self._print(found.text[len(self._streamed) :] + "\n")
        else:
            self._print(f"{found.question.id}: {found.question.query.strip()}\n  {found.text}\n")
        self._streamed = ""
        for line in remarks(found):
            self._print(f"  {line}\n")

    def finish(self, report: dict[str, Any], path: Path) -> None:
        """Say how many there are and where everything is."""
        counts = report["counts"]
        if counts["answers"] + counts["failures"] > 1:
            print(f"{counts['answers']} answers, {counts['failures']} failures", file=self.err)
        print(f"Everything is in {path}", file=self.err, flush=True)

    def _print(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
