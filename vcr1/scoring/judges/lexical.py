"""A judge that compares words: no network, no model, and no understanding."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from concurrent.futures import Future

from vcr1.records import EventScores, JudgeFailure
from vcr1.records.futures import finished
from vcr1.scoring.judges.base import CaptionPair, Verdict

log = logging.getLogger(__name__)

_BREAK = re.compile(r"[.;!?\n]+|\bthen\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "then",
        "first",
        "next",
        "after",
        "that",
        "it",
        "is",
        "are",
        "was",
        "were",
        "of",
        "in",
        "on",
        "at",
        "to",
    ]
)


class LexicalJudge:
    """Takes each sentence for an event, and an event for told where a sentence has all of its content words.

    Good enough for the synthetic world and for tests; it knows no synonyms and no negation. For real captions
    take a language model (``judge=endpoint``).
    """

    def begin(self, pairs: Sequence[CaptionPair]) -> Future[list[Verdict]]:
        """Judge at once."""
        return finished([self._judge(pair) for pair in pairs])

    def probe(self) -> None:
        """Say what this judge is; there is no service behind it that could be amiss."""
        log.warning("captions are judged by their words alone; real captions need judge=endpoint")

    @staticmethod
    def _judge(pair: CaptionPair) -> Verdict:
        reference, prediction = _events(pair.reference), _events(pair.prediction)
        # An event of fillers only would be a part of every sentence.
        wanted = reference if pair.events is None else list(filter(None, map(_content, pair.events)))
        if not wanted:
            return JudgeFailure("no_events")
        return EventScores(_told(wanted, prediction), _told(prediction, reference))


def _events(caption: str) -> list[frozenset[str]]:
    """Return the content words of each sentence."""
    return [words for part in _BREAK.split(caption) if (words := _content(part))]


def _content(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(text.lower()) if word not in _FILLERS)


def _told(events: Sequence[frozenset[str]], sentences: Sequence[frozenset[str]]) -> float:
    """Return share of the events of which some sentence has every word; 0 for no events."""
    told = [any(event <= sentence for sentence in sentences) for event in events]
    return sum(told) / len(told) if told else 0.0
