"""What a reader of annotations returns: samples, and an account of every row that it changed or left out."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum

from vcr1.errors import UserError
from vcr1.records import Interval, Sample
from vcr1.scoring.geometry import clip_interval

VIDEO_REASONS = ("missing_video", "missing_folder", "no_frames", "unreadable_frame", "unreadable_video")
"""Reasons for which a row is left out that lie in its video, not in the annotation."""

MOST_OVERSHOOT = 0.1
"""Part of a video's duration by which a span may end behind it and still be a slip that is mended."""
LEAST_OVERSHOOT = 2.0
"""Seconds by which it always may; Charades-STA's spans end up to 1.5 s behind their videos."""
NO_QUESTIONS = ("no_spans", "repeated_id", "never_visible")
"""Reasons for which a row is no question at all, so that no evaluation counts it, official ones neither."""


class Purpose(Enum):
    """Purpose of reading annotations: it decides about dirty truth and rows without a usable video.

    Attributes:
        TRAINING: spans and boxes are mended or dropped, rows without a video are dropped; all is counted.
        HELD_OUT: of a training run: the truth stays the file's, rows without a video are dropped.
        EVALUATION: the truth stays the file's, and every question counts, also those without a video.
        SCORING: as EVALUATION, and no video need be there, nor their folder.
    """

    TRAINING = "training"
    HELD_OUT = "held_out"
    EVALUATION = "evaluation"
    SCORING = "scoring"


_PURPOSE: ContextVar[Purpose] = ContextVar("purpose", default=Purpose.TRAINING)


@contextmanager
def reading_for(purpose: Purpose) -> Iterator[None]:
    """Within, readers read for this purpose; outside of any, for training."""
    token = _PURPOSE.set(purpose)
    try:
        yield
    finally:
        _PURPOSE.reset(token)


def purpose() -> Purpose:
    """Return what annotations are read for here."""
    return _PURPOSE.get()


def keeps_truth() -> bool:
    """Return whether the truth stays as the file has it; else what is dirty in it is mended or dropped."""
    return _PURPOSE.get() is not Purpose.TRAINING


def keeps_missing() -> bool:
    """Return whether rows with a missing video are samples here, which count as failures."""
    return _PURPOSE.get() in (Purpose.EVALUATION, Purpose.SCORING)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is no sample.

    Attributes:
        row: its name, the id that its sample would have.
        reason: why, of a fixed set.
        category: the group that its sample would count in, if any.
        detail: a sentence more, such as the paths that were tried.
    """

    row: str
    reason: str
    category: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Annotations:
    """Samples of one annotation file.

    Attributes:
        source: the file, for messages.
        samples: usable rows.
        mended: reason -> rows that were changed and kept.
        dropped: reason -> rows that were left out.
        noticed: reason -> rows that look wrong and were kept as the file has them.
        left_out: the rows that were left out, one by one; a reader from elsewhere may only count them.
    """

    source: str
    samples: list[Sample] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def without_video(self) -> list[str]:
        """Return names of the rows that were left out for want of a video that can be read."""
        return [one.row for one in self.left_out if one.reason in VIDEO_REASONS]

    def drop(self, reason: str, row: str, category: str | None = None, detail: str = "") -> None:
        """Count a row that is left out; see `LeftOut`."""
        self.dropped[reason] += 1
        self.left_out.append(LeftOut(row, reason, category, detail))

    def settle(self, attempt: Annotations, sample: Sample | None, category: str | None = None) -> None:
        """Account for one row: kept with what was mended in it, or left out for the first reason found.

        Args:
            attempt: the row's own account, named after it, so that a row counts once for each reason.
            sample: the row's sample; None where it is left out.
            category: of the row, which a row that is left out still counts in.
        """
        if sample is None:
            reason = next(iter(attempt.dropped))
            detail = next((one.detail for one in attempt.left_out if one.reason == reason), "")
            self.drop(reason, attempt.source, category, detail)
            return
        self.samples.append(sample)
        self.mended.update(attempt.mended.keys())
        self.noticed.update(attempt.noticed.keys())

    def __str__(self) -> str:
        def listing(title: str, counts: Counter[str]) -> str:
            reasons = ", ".join(
                f"{name.replace('_', ' ')}: {count}" for name, count in sorted(counts.items())
            )
            return f"; {title} {counts.total()} ({reasons})" if counts else ""

        text = f"{self.source}: {len(self.samples)} samples{listing('mended', self.mended)}"
        text += listing("kept as published", self.noticed) + listing("dropped", self.dropped)
        example = next((one for one in self.left_out if one.detail), None)
        return text if example is None else f"{text}; for example {example.row}: {example.detail}"

    def checked(self) -> Annotations:
        """Return the annotations themselves where they hold samples.

        Raises:
            UserError: nothing usable is left.
        """
        if not self.samples:
            raise UserError(f"{self} - nothing to work with")
        return self


def concatenate(parts: Sequence[Annotations], seed: int | None = None) -> Annotations:
    """Return several annotations as one, part after part; ``data.loader.shuffle=false`` trains in that order.

    Args:
        parts: in their order; equal ones are passes over the same samples.
        seed: gives every part an inner order of its own; None leaves it as it is.
    """
    result = Annotations(" + ".join(part.source for part in parts))
    rng = random.Random(seed)
    for part in parts:
        result.samples += part.samples if seed is None else rng.sample(part.samples, len(part.samples))
        result.mended += part.mended
        result.dropped += part.dropped
        result.noticed += part.noticed
        result.left_out += part.left_out
    return result.checked()


def mend_interval(
    start: float, end: float, duration: float | None, annotations: Annotations
) -> Interval | None:
    """Return the rule for dirty spans; counts what it does in ``annotations``.

    For training, that of `clamp_interval`. Where the truth stays the file's (`keeps_truth`), the span is
    returned as it is, and what is odd about it is counted as noticed; only an end that is no finite number
    is dropped. A span that ends before it starts has no form of its own: it becomes an instant, which scores
    0 against every answer, as in official scorers.

    Args:
        start: seconds.
        end: seconds.
        duration: of the video in seconds; None where it is unknown, then no end is too late.
        annotations: where mended, noticed and dropped rows are counted.
    """
    if not keeps_truth():
        return clamp_interval(start, end, duration, annotations)
    ends = _finite(start, end)
    if ends is None:
        annotations.drop("not_a_span", annotations.source)
        return None
    start, end = ends
    seconds = math.inf if duration is None or _unusable(duration) else duration
    if start >= end:
        annotations.noticed["start_not_before_end"] += 1
    elif end <= 0 or start >= seconds:
        annotations.noticed["outside_the_video"] += 1
    elif start < 0 or end > seconds:
        annotations.noticed["reaches_over_the_video"] += 1
    return Interval(start, max(start, end))


def clamp_interval(
    start: float, end: float, duration: float | None, annotations: Annotations, anyhow: bool = False
) -> Interval | None:
    """Return the part of a span that lies in the video, or None; counted in ``annotations``.

    1. A duration that is not positive, an end that is no finite number, or ``start >= end``: dropped.
    2. A span that lies outside ``[0, duration]``: dropped.
    3. A span that ends far behind the duration (by more than `MOST_OVERSHOOT` of it, and by more than
       `LEAST_OVERSHOOT` seconds): dropped, but not ``anyhow``. That is no slip: it may count frames.
    4. A span that reaches over 0 or the duration: clamped to it.
    """
    ends = _finite(start, end)
    clipped = None
    if _unusable(duration):
        reason = "duration_not_positive"
    elif ends is None:
        reason = "not_a_span"
    elif ends[0] >= ends[1]:
        reason = "start_not_before_end"
    else:
        span, seconds = Interval(*ends), max(ends[1], 0.0) if duration is None else duration
        reason, clipped = "outside_the_video", clip_interval(span, seconds)
        slip = anyhow or span.end - seconds <= max(MOST_OVERSHOOT * seconds, LEAST_OVERSHOOT)
        if clipped is not None and not slip:
            reason, clipped = "ends_far_behind_the_video", None
        if clipped is not None and clipped != span:
            annotations.mended["clamped_to_the_video"] += 1
    if clipped is None:
        annotations.drop(reason, annotations.source)
    return clipped


def _finite(start: float, end: float) -> tuple[float, float] | None:
    """Return two ends as floats; None where one is no finite number."""
    try:
        start, end = float(start), float(end)
    except (TypeError, ValueError, OverflowError):
        return None
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None


def _unusable(duration: float | None) -> bool:
    return duration is not None and not 0 < duration < math.inf


def add_span(
    result: Annotations,
    id_: str,
    path: str | None,
    sentence: str,
    start: float,
    end: float,
    duration: float | None,
    detail: str = "",
) -> None:
    """Add one sample of temporal grounding, or count why it is left out.

    Args:
        result: where the sample or the reason goes.
        id_: id of the sample.
        path: of the video; None where it is missing.
        sentence: the query.
        start: seconds.
        end: seconds.
        duration: of the video in seconds, where it is known.
        detail: where the video was looked for.
    """
    query = sentence.strip() if isinstance(sentence, str) else ""
    attempt, sample = Annotations(id_), None
    if path is None:
        attempt.drop("missing_video", id_, detail=detail)
    elif not query:
        attempt.drop("empty_query", id_)
    elif (interval := mend_interval(start, end, duration, attempt)) is not None:
        sample = Sample(id_, path, query, interval, None if _unusable(duration) else duration)
    result.settle(attempt, sample)
