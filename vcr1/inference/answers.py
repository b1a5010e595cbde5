"""Answers: the text, what the task reads in it, and their JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vcr1.errors import UserError
from vcr1.inference.clues import Look
from vcr1.inference.questions import Failure, Question
from vcr1.records import Box, Interval, VideoClip, json_value
from vcr1.records.files import write_whole
from vcr1.tasks import FREE


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: what was asked.
        text: the model's words.
        value: what the task reads in them, times in seconds from the start of the question's source; the text
            of a free question.
        clip: the frames shown, without pixels.
        tokens: of the text.
        truncated: whether the length limit ended the text.
        looks: the trace, where the model was to look again.
        stopped: why it looked no further.
        scores: metric -> what the answer scores, where its truth is known.
    """

    question: Question
    text: str
    value: Any
    clip: VideoClip
    tokens: int
    truncated: bool
    looks: tuple[Look, ...] = ()
    stopped: str | None = None
    scores: Mapping[str, float] | None = None

    @property
    def spans(self) -> tuple[Interval, ...]:
        """Return the spans of time that the answer names."""
        return self.question.task.spans(self.value)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Return the boxes that the answer names, one for each shown frame."""
        return self.question.task.boxes(self.value)

    @property
    def failure(self) -> str | None:
        """Return reason for which the answer, or a part of it, could not be read; None where it could."""
        return self.question.task.failure(self.value)


def to_json(found: Answer | Failure) -> dict[str, Any]:
    """Return an answer or a failure as plain values."""
    if isinstance(found, Failure):
        return asdict(found)
    question, source = found.question, found.question.source
    part = {"start": source.start, "end": source.end} if source.start or source.end is not None else {}
    row: dict[str, Any] = {"id": question.id, "video": source.path, **part, "task": question.task.name}
    row |= {"query": question.query, "text": found.text}
    if question.task is not FREE:
        row |= {"answer": json_value(found.value, reasons=False), "parse_failure": found.failure}
    if question.truth is not None:
        row |= {"truth": json_value(question.truth.target, reasons=False), "scores": found.scores}
    elif question.unused is not None:
        row["truth_unused"] = question.unused
    if found.boxes:
        row["times"] = [round(time, 3) for time in found.clip.timestamps]
    row |= {"tokens": found.tokens, "truncated": found.truncated, "frames": len(found.clip.indices)}
    if found.stopped is not None:
        row |= {"looks": [json_value(look) for look in found.looks], "stopped": found.stopped}
    return row


def report_of(found: Sequence[Answer | Failure], model: str, complete: bool = True) -> dict[str, Any]:
    """Return the content of answers.json.

    Returns:
        ``model``; ``complete``, false where the run was interrupted; ``counts`` of answers, failures and
        answers that could not be read by reason; the answers; the failures.
    """
    answers = [one for one in found if isinstance(one, Answer)]
    failures = [one for one in found if isinstance(one, Failure)]
    reasons = Counter(reason for one in answers if (reason := one.failure) is not None)
    counts = {"answers": len(answers), "failures": len(failures), "not_read": dict(sorted(reasons.items()))}
    return {
        "model": model,
        "complete": complete,
        "counts": counts,
        "answers": [to_json(one) for one in answers],
        "failures": [to_json(one) for one in failures],
    }


def write_answers(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_whole(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another out=...") from error
