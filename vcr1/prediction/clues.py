"""The second look: ask at a low frame budget, then look again, more closely, where the model points.

Pure: the model is behind a function from a part of the video and a budget to an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vcr1.errors import UserError, VideoError
from vcr1.geometry import interval_iou
from vcr1.prediction.answers import Answer, intervals_of
from vcr1.records import GroundedAnswer, Interval, ParseFailure
from vcr1.video import FrameBudget

Ask = Callable[[Interval, FrameBudget], Answer]
"""Asks about a part of the video within a budget; the answer and its look have the video's times."""

TASKS = ("grounding", "grounded_qa")
"""Tasks whose answers name times."""


@dataclass(frozen=True, slots=True)
class CluePlan:
    """How often and how closely to look again. All looks together cost what one look may.

    Attributes:
        rounds: looks after the first, N; 0 looks once, with the whole budget.
        first: share of the budget, in frames and pixels and so in vision tokens, of the first look; its frame
            rate is the budget's times this. The rest is divided evenly among the N others.
        fps: frames per second of the other looks, as far as their budget goes.
        margin: how much of the video around the named times is shown again on either side, as a share of
            their length; at least the time between two frames of the look before.
        least: fewest seconds that are shown.
        settled: IoU of two answers in a row from which on there are no further looks.

    Raises:
        UserError: a value out of its range, named ``clues.<field>``.
    """

    rounds: int = 0
    first: float = 0.5
    fps: float = 8.0
    margin: float = 0.5
    least: float = 4.0
    settled: float = 0.95

    def __post_init__(self) -> None:
        ranges = {
            "rounds": isinstance(self.rounds, int) and 0 <= self.rounds <= 16,
            "first": 0 < self.first < 1,
            "fps": 0 < self.fps < math.inf,
            "margin": 0 <= self.margin < math.inf,
            "least": 0 < self.least < math.inf,
            "settled": 0 < self.settled <= 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"clues.{name}={getattr(self, name)} is out of range")

    def budget(self, whole: FrameBudget, number: int) -> FrameBudget:
        """What look ``number``, counted from 0, may cost."""
        if self.rounds == 0:
            return whole
        share = self.first if number == 0 else (1 - self.first) / self.rounds
        most = max(int(whole.max_frames * share), 2)
        return replace(
            whole,
            fps=whole.fps * self.first if number == 0 else self.fps,
            max_frames=most,
            min_frames=min(whole.min_frames, most),
            total_pixels=max(int(whole.total_pixels * share), whole.min_pixels),
        )


def search(ask: Ask, whole: Interval, budget: FrameBudget, plan: CluePlan) -> Answer:
    """Look, and look again where the answer points, until a rule says stop.

    Args:
        ask: asks the model.
        whole: the video, from 0 to its end.
        budget: what all looks together may cost.
        plan: the rules.

    Returns:
        The last answer that names a time, else the first; with all looks, and why there is no further one.

    Raises:
        VideoError: the first look fails.
    """
    best = ask(whole, plan.budget(budget, 0))
    looks, stopped = best.looks, f"clues.rounds={plan.rounds}"
    for number in range(1, plan.rounds + 1):
        last, closer = looks[-1], plan.budget(budget, number)
        if not last.intervals:
            stopped = "the answer names no time"
            break
        part = window(last.intervals, whole, last.part.length / last.frames, plan)
        if gains_nothing(part, last.part, last.frames, closer):
            stopped = "a closer look would show no more"
            break
        try:
            answer = ask(part, closer)
        except VideoError as error:
            stopped = f"the part cannot be shown: {error}"
            break
        looks += answer.looks
        before, best = best, answer if intervals_of(answer.value) else best
        if best is answer and agree(before, answer) >= plan.settled:
            stopped = "two looks agree"
            break
    return replace(best, looks=looks, stopped=stopped)


def window(named: Sequence[Interval], whole: Interval, spacing: float, plan: CluePlan) -> Interval:
    """The part of the video to look at again: all named times with a margin, within the video.

    Args:
        named: at least one.
        whole: the video.
        spacing: seconds between two frames of the look that named them.
        plan: the margin, and the fewest seconds.
    """
    hull = hull_of(named)
    around = max(plan.margin * hull.length, spacing)
    start, end = hull.start - around, hull.end + around
    missing = max(plan.least - (end - start), 0.0)
    start, length = start - missing / 2, end - start + missing
    # Moved rather than cut where it reaches over an end of the video, also where all of it lies beyond.
    start = max(min(start, whole.end - length), whole.start)
    return Interval(start, min(start + length, whole.end))


def gains_nothing(part: Interval, before: Interval, frames: int, closer: FrameBudget) -> bool:
    """Whether a look at a part would show its frames no closer together than the look before did."""
    count = min(part.length * closer.fps, closer.max_frames)
    return part.length / count >= before.length / frames


def hull_of(spans: Sequence[Interval]) -> Interval:
    """The shortest span that holds all."""
    return Interval(min(span.start for span in spans), max(span.end for span in spans))


def agree(one: Answer, other: Answer) -> float:
    """IoU of the times that two answers name as a whole."""
    spans = [intervals_of(answer.value) for answer in (one, other)]
    return interval_iou(*map(hull_of, spans)) if all(spans) else 0.0


def shifted(value: Any, seconds: float) -> Any:
    """A value whose times count from so much earlier; other values as they are."""
    match value:
        case Interval():
            return Interval(value.start + seconds, value.end + seconds)
        case GroundedAnswer() if not isinstance(value.intervals, ParseFailure):
            return replace(value, intervals=tuple(shifted(span, seconds) for span in value.intervals))
    return value
