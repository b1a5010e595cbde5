"""What a judge of captions is asked, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from vcr1.records import EventScores, JudgeFailure

JUDGE_FAILURES = (
    "no_events",
    "timeout",
    "unreachable",
    "rate_limited",
    "server_error",
    "refused",
    "malformed",
)
"""Every reason that a `JudgeFailure` can have."""

Verdict = EventScores | JudgeFailure


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """A reference caption and the caption that is held against it.

    Attributes:
        reference: the true caption.
        prediction: the model's.
        events: the events of the reference, where the annotation lists them; else the judge does.
    """

    reference: str
    prediction: str
    events: tuple[str, ...] | None = None


class EventJudge(Protocol):
    """Compares captions by the events that they tell.

    A judge travels to the decoding processes and back with its task: it pickles as its settings.
    """

    def begin(self, pairs: Sequence[CaptionPair]) -> Future[list[Verdict]]:
        """Begin to judge: one verdict per pair. Never raises on text."""

    def probe(self) -> None:
        """See that the judge answers at all, before anything heavy starts.

        Raises:
            UserError: it does not, and why.
        """


def f1(recall: float, precision: float) -> float:
    """Return harmonic mean of recall and precision; 0 where both are, NaN where one is."""
    if math.isnan(recall) or math.isnan(precision):
        return math.nan
    return 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0
