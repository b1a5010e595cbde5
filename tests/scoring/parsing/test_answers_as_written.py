"""What models write, and what they mean by it: the tables beside this file, read with the tasks' own parsers.

``tables`` was written before the parsers; ``heldout`` after them, before they were asked; ``traps`` likewise,
to mislead them; ``review`` holds what a reviewer found to be misread. A line is
``meaning | completion``; see the head of each file.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vcr1.records import Box, GroundedAnswer, Interval, ParseFailure, Sample
from vcr1.tasks import CaptioningTask, GroundedQATask, GroundingTask, QATask, QualityTask, Task, TrackingTask

FOLDERS = ("tables", "heldout", "traps", "review")
ANIMALS = ("a dog", "a cat", "a horse", "both A and B", "none of them")
TWO_BOXES = ".1 .2 .4 .6, .2 .2 .5 .6"
REFUSE = "refuse"


def interval(meaning: str) -> Interval:
    start, end = map(float, meaning.split())
    return Interval(start, end)


def box(meaning: str) -> Any:
    """The corners, in the frame; "-" for a box without area."""
    return "-" if meaning == "-" else tuple(min(max(float(value), 0.0), 1.0) for value in meaning.split())


def boxes(meaning: str) -> Any:
    return [box(part.strip()) for part in meaning.replace("=", TWO_BOXES).split(",")]


def seen_boxes(value: tuple[Box, ...]) -> Any:
    return ["-" if box.area == 0 else (box.x0, box.y0, box.x1, box.y1) for box in value]


def grounded(meaning: str) -> Any:
    letter, spans = meaning.split("; ")
    return letter, REFUSE if spans == REFUSE else tuple(map(interval, spans.split(",")))


def seen_grounded(value: GroundedAnswer) -> Any:
    return tuple(
        REFUSE if isinstance(part, ParseFailure) else part for part in (value.letter, value.intervals)
    )


def caption(meaning: str) -> str:
    return meaning.replace("=", "A man opens a door.").replace("\\n", "\n")


def same(value: Any) -> Any:
    return value


TASKS: dict[str, tuple[Task, Callable[[str], Any], Callable[[Any], Any]]] = {
    "grounding": (GroundingTask(), interval, same),
    "tracking": (TrackingTask(boxes=2), boxes, seen_boxes),
    "grounded_qa": (GroundedQATask(), grounded, seen_grounded),
    "qa": (QATask(), same, same),
    "quality": (QualityTask(), same, same),
    "captioning": (CaptioningTask(), caption, same),
}


def lines_of(task: str, folder: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Meaning, options and completion of each line."""
    options = {"": ANIMALS}
    for line in (Path(__file__).parent / folder / f"{task}.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        meaning, bar, completion = line.partition(" | ")
        if not bar:
            name, _, texts = line.partition(": ")
            options[name] = tuple(texts.split("; "))
            continue
        name = ""
        if task in ("qa", "quality"):
            meaning, name = split_choice(meaning)
        yield meaning, options[name], completion.replace("\\n", "\n")


def split_choice(meaning: str) -> tuple[str, str]:
    """``refuse name``, ``name B`` or ``name: low quality``."""
    if meaning.startswith(REFUSE):
        return REFUSE, meaning.split()[1]
    name, _, value = meaning.replace(": ", " ", 1).partition(" ")
    return value, name


CASES = [
    (task, folder)
    for folder in FOLDERS
    for task in TASKS
    if (Path(__file__).parent / folder / f"{task}.txt").exists()
]
# The lines that are plain and yet refused, as the parser cannot tell them from others.
REFUSED = {("tracking", "tables"): 1, ("tracking", "traps"): 1, ("quality", "heldout"): 2}


def read(task: str, completion: str, options: tuple[str, ...]) -> Any:
    asked, _, seen = TASKS[task]
    value = asked.parse(completion, Sample("s", "v.mp4", "?", None, options=options))
    if isinstance(value, ParseFailure):
        assert value.reason in asked.failure_reasons
        return (REFUSE, REFUSE) if task == "grounded_qa" else REFUSE
    return seen(value)


@pytest.mark.parametrize(("task", "folder"), CASES)
def test_answers_are_read_as_meant_or_refused(task: str, folder: str) -> None:
    refused = []
    for meaning, options, completion in lines_of(task, folder):
        meant = REFUSE if meaning == REFUSE else TASKS[task][1](meaning)
        found = read(task, completion, options)
        if found == meant:
            continue
        parts = zip(meant, found, strict=True) if task == "grounded_qa" else [(meant, found)]
        assert all(got in (want, REFUSE) for want, got in parts), f"a wrong value: {completion!r}: {found}"
        refused.append(completion)
    assert len(refused) == REFUSED.get((task, folder), 0), refused


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_at_least_60_lines(task: str) -> None:
    assert len(list(lines_of(task, "tables"))) >= 60
