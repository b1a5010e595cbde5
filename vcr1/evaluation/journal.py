"""Answers on disk while an evaluation runs: what has been answered once is not asked again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vcr1.errors import UserError
from vcr1.evaluation.answers import AnswerRecord, Key

PARTS = "parts"
"""Folder of the answers of each rank, in the run's folder."""


def start_parts(folder: Path) -> None:
    """Make the folder by which an evaluation that has been started is known."""
    (folder / PARTS).mkdir(parents=True, exist_ok=True)


def read_parts(folder: Path) -> dict[Key, AnswerRecord]:
    """All answers that the ranks of earlier attempts have written; of two to one question the later line.

    A line that was being written when the machine stopped is passed over.

    Args:
        folder: the run's.
    """
    answers: dict[Key, AnswerRecord] = {}
    for path in sorted((folder / PARTS).glob("rank*.jsonl")):
        for content in read_journal(path):
            try:
                answer = AnswerRecord.from_json(content)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            # What could not be generated is tried again: it must not stand in for a later success.
            known = answers.get(answer.key)
            if known is None or known.failure is not None:
                answers[answer.key] = answer
    return answers


def read_journal(path: Path) -> Iterator[Any]:
    """Yield the lines of JSON of a file that may have been torn while it was written."""
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue


def read_answers(path: Path) -> list[AnswerRecord]:
    """Return the answers of a finished run's samples.jsonl.

    Raises:
        UserError: there is no such file, or a line of it is no answer.
    """
    answers = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answers.append(AnswerRecord.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: no answer of an evaluation ({error!r})") from error
    return answers


def add_answers(folder: Path, rank: int, answers: Iterable[AnswerRecord]) -> None:
    """Write answers down, whole lines in one piece, so that they outlive this process.

    Args:
        folder: the run's.
        rank: whose file they go into.
        answers: of one batch.

    Raises:
        UserError: the disk takes them not.
    """
    add_lines(folder / PARTS / f"rank{rank:05d}.jsonl", "".join(answer.line() for answer in answers))


def add_lines(path: Path, text: str) -> None:
    """Add whole lines to a file in one piece.

    Raises:
        UserError: the disk takes them not.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # torn: what follows must not be lost with it
                    text = "\n" + text
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"{path}: answers cannot be written ({error.strerror}); free some space") from error
