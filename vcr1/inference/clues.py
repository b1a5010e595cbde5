"""The second look: ask at a low frame budget, then look again, more closely, where the model points.

Pure: the model is behind a function from a part of the video and a budget to an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

from vcr1.errors import UserError, VideoError
from vcr1.records import Interval, VideoSource
from vcr1.scoring.geometry import interval_iou
from vcr1.video import FrameBudget


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a video: which part was shown, at what cost, and what was answered.

    Attributes:
        part: seconds of the video that were shown.
        frames: how many.
        vision_tokens: of the model, for them.
        text: the answer's text; the times in it count from the start of the part.
        intervals: the spans of time that it names, in seconds of the video.
    """

    part: Interval
    frames: int
    vision_tokens: int
    text: str
    intervals: tuple[Interval, ...]


class Looked(Protocol):
    """An answer that a look has given: a dataclass with these fields, among others."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def looks(self) -> tuple[Look, ...]:
        """Return the trace so far."""

    @property
    def stopped(self) -> str | None:
        """Return why there is no further look."""


A = TypeVar("A", bound=Looked)

Ask = Callable[[Interval, FrameBudget], A]
"""Asks about a part of the video within a budget; the answer and its look have the video's times."""


@dataclass(frozen=True, slots=True)
class CluePlan:
    """How often and how closely to look again. All looks together cost what one look may.

    Attributes:
        rounds: looks after the first, N; 0 looks once, with the whole budget.
        first: share of the budget, in frames and pixels and so in vision tokens, of the first look; its frame
            rate is the budget's times this. The rest is divided evenly among the others.
        frames: fewest frames of another look: there are no more of them than the budget has frames for, but
            at least one.
        fps: frames per second of the other looks, as far as their budget goes.
        margin: how much of the video around the named times is shown again on either side, as a share of
            their length; at least the time between two frames of the look before.
        least: fewest seconds that are shown.
        settled: IoU of two answers in a row from which on there are no further looks.

    Raises:
        UserError: a value out of its range, named ``clues.<field>``.
    """

    rounds: int = 0
    first: float = 0.7
    frames: int = 8
    fps: float = 8.0
    margin: float = 0.5
    least: float = 4.0
    settled: float = 0.95

    def __post_init__(self) -> None:
        ranges = {
            "rounds": isinstance(self.rounds, int) and 0 <= self.rounds <= 16,
            "first": 0 < self.first < 1,
            "frames": isinstance(self.frames, int) and self.frames >= 2,
            "fps": 0 < self.fps < math.inf,
            "margin": 0 <= self.margin < math.inf,
            "least": 0 < self.least < math.inf,
            "settled": 0 < self.settled <= 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"clues.{name}={getattr(self, name)} is out of range")

    def budget(self, whole: FrameBudget, number: int) -> FrameBudget:
        """Return what look ``number``, counted from 0, may cost."""
        if self.rounds == 0:
            return whole
        share = self.first if number == 0 else (1 - self.first) / self.affordable(whole)
        most = max(int(whole.max_frames * share), 2)
        return replace(
            whole,
            fps=whole.fps * self.first if number == 0 else self.fps,
            max_frames=most,
            min_frames=min(whole.min_frames, most),
            total_pixels=max(int(whole.total_pixels * share), whole.min_pixels),
        )

    def affordable(self, whole: FrameBudget) -> int:
        """Return looks after the first that a budget has frames for."""
        rest = round(whole.max_frames * (1 - self.first), 6)  # 40 * (1 - 0.6) is 16, not a little less
        return min(self.rounds, max(int(rest / self.frames), 1))


def search(ask: Ask[A], whole: Interval, budget: FrameBudget, plan: CluePlan) -> A:
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
    return look_again(ask(whole, plan.budget(budget, 0)), ask, whole, budget, plan)


def look_again(best: A, ask: Ask[A], whole: Interval, budget: FrameBudget, plan: CluePlan) -> A:
    """Return the rest of `search`, after the first look.

    Args:
        best: the first look's answer.
        ask: as for `search`, like all that follows.
    """
    rounds = plan.affordable(budget)
    looks, stopped = best.looks, f"clues.rounds={plan.rounds}"
    if rounds < plan.rounds:
        stopped = f"a further look would have fewer than clues.frames={plan.frames} frames"
    for number in range(1, rounds + 1):
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
        before, best = best, answer if answer.looks[-1].intervals else best
        if best is answer and overlap(before, answer) >= plan.settled:
            stopped = "two looks agree"
            break
    return replace(best, looks=looks, stopped=stopped)


def window(named: Sequence[Interval], whole: Interval, spacing: float, plan: CluePlan) -> Interval:
    """Return the part of the video to look at again: all named times with a margin, within the video.

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
    """Return whether a look at a part would show its frames no closer together than the look before did."""
    count = min(part.length * closer.fps, closer.max_frames)
    return part.length / count >= before.length / frames


def hull_of(spans: Sequence[Interval]) -> Interval:
    """Return the shortest span that holds all."""
    return Interval(min(span.start for span in spans), max(span.end for span in spans))


def deciding(looks: Sequence[Look]) -> int:
    """Return number of the look whose answer `search` returns: the last that names a time, else the first."""
    return next((number for number in reversed(range(len(looks))) if looks[number].intervals), 0)


def part_of(source: VideoSource, part: Interval, whole: Interval) -> VideoSource:
    """Return a part of a source, which may be a part of a file itself; its end stays open where it was."""
    end = source.end if part.end == whole.end else source.start + part.end
    return replace(source, start=source.start + part.start, end=end)


def overlap(one: Looked, other: Looked) -> float:
    """Return the IoU of the times that two answers name as a whole, in their last looks."""
    spans = [answer.looks[-1].intervals for answer in (one, other)]
    return interval_iou(*map(hull_of, spans)) if all(spans) else 0.0
