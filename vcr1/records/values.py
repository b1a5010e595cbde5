"""What answers and truths are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time in seconds, ``start <= end``, both finite.

    Raises:
        ValueError: an end that is not finite, or that lies before the start.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"interval with an end that is not finite: {self.start} to {self.end}")
        if self.end < self.start:
            raise ValueError(f"interval that ends before it starts: {self.start} to {self.end}")

    @property
    def length(self) -> float:
        """Return length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box by its corners, as fractions of the frame: ``x`` to the right, ``y`` downwards.

    ``(0, 0)`` is the frame's upper left corner and ``(1, 1)`` its lower right one. A box may reach out of
    the frame, as annotated objects do, and may have no area; `vcr1.scoring.geometry.clip_box` cuts it.

    Raises:
        ValueError: a corner that is not finite, or a second corner left of or above the first.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        corners = (self.x0, self.y0, self.x1, self.y1)
        if not all(map(math.isfinite, corners)):
            raise ValueError(f"box with a corner that is not finite: {corners}")
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise ValueError(f"box whose second corner lies before its first: {corners}")

    @property
    def area(self) -> float:
        """Return area as a fraction of the frame."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


Tracklet = tuple[Box, ...]
"""One object's boxes, one per asked frame in order of time."""


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A completion that holds no answer of the wanted kind; ``reason`` comes from a fixed set."""

    reason: str


@dataclass(frozen=True, slots=True)
class GroundedAnswer:
    """An option and the time that shows it; in an answer either part may have failed on its own.

    Attributes:
        letter: the option.
        intervals: the spans of time in seconds.
    """

    letter: str | ParseFailure
    intervals: tuple[Interval, ...] | ParseFailure


@dataclass(frozen=True, slots=True)
class EventScores:
    """How the events of two captions agree, each in 0..1.

    Attributes:
        recall: share of the reference's events that the prediction tells.
        precision: share of the prediction's events that the reference tells; NaN where it was not asked for.
    """

    recall: float
    precision: float


@dataclass(frozen=True, slots=True)
class JudgeFailure:
    """A judge that gave no verdict, and why: the completion is left out, not scored 0."""

    reason: str


@dataclass(frozen=True, slots=True)
class JudgedCaption:
    """A caption with its judge's verdict."""

    text: str
    verdict: EventScores | JudgeFailure


def json_value(value: Any, reasons: bool = True) -> Any:
    """Return a value as JSON has it: a span as its ends, a box as its corners, what is no number as null.

    Args:
        value: an answer, a truth, or anything that holds them.
        reasons: write the reason of an answer that could not be read; otherwise null.
    """
    if isinstance(value, Interval):
        return [value.start, value.end]
    if isinstance(value, Box):
        return [value.x0, value.y0, value.x1, value.y1]
    if isinstance(value, ParseFailure):
        return {"failure": value.reason} if reasons else None
    if is_dataclass(value) and not isinstance(value, type):
        return {name: json_value(getattr(value, name), reasons) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): json_value(item, reasons) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, reasons) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
