"""Whether an annotation fits its video, once the length of the video is known."""

from __future__ import annotations

from vcr1.records import Sample
from vcr1.tasks import Task

TOLERANCE = 2.0
"""Seconds by which times of an annotation may lie behind the end of the video: Charades-STA's reach 1.5 s
behind, and clocks that count sound or round to whole seconds differ by less."""

CUT_SHORT = 0.9
"""A video that is shorter than its annotation states by this factor, and by ``TOLERANCE``, is cut short."""


def misfit(task: Task, sample: Sample, duration: float) -> str | None:
    """Return why a sample cannot be learned from, in a sentence that names the video; None where it can.

    Args:
        task: of the sample.
        sample: with its target in seconds, and the length of its video where the annotation states it.
        duration: measured length of the video, or of the part that the sample is about, in seconds.
    """
    place = sample.source.path
    for span in task.spans(sample.target):
        about = f"{place}: the span from {span.start:g} to {span.end:g} s"
        if span.start >= duration:
            return (
                f"{about} lies behind the end of the video, which lasts {duration:.2f} s; are these frames "
                "and not seconds? Mend the annotation"
            )
        if span.end > duration + TOLERANCE:
            return (
                f"{about} ends more than {TOLERANCE:g} s behind the end of the video, which lasts "
                f"{duration:.2f} s; mend the annotation or fetch the video again"
            )
    stated = sample.duration
    if stated is not None and duration < min(CUT_SHORT * stated, stated - TOLERANCE):
        return (
            f"{place}: lasts {duration:.2f} s, but {stated:.2f} s in the annotation: it is cut short or "
            "another video; fetch it again or mend the annotation"
        )
    return None


def oddities(task: Task, sample: Sample, duration: float) -> list[str]:
    """Return what is odd about a sample that is used all the same: kinds to be counted."""
    found = []
    if any(span.end > duration for span in task.spans(sample.target)):
        found.append(f"targets that end up to {TOLERANCE:g} s behind the video, and are not clamped")
    if sample.duration is not None and abs(sample.duration - duration) > TOLERANCE:
        found.append(f"durations in the annotation that differ by more than {TOLERANCE:g} s from the video's")
    return found
