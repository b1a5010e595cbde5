"""Spans of time out of the tokens of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vcr1.records import Interval, ParseFailure
from vcr1.scoring.parsing import time_words as words
from vcr1.scoring.parsing.times import MINUS, SCALES, Token

MAX_INTERVALS = 64
"""Most spans that one glue block may name."""

_BESIDE = words.BESIDE | {MINUS}  # a sign joins nothing; the time behind it is refused for its range
_LARGE_UNITS = SCALES.keys() - {"s"}


class _Pair(NamedTuple):
    """Two times, in the order written, and the texts around them.

    Attributes:
        one: the first time.
        other: the second.
        head: what stands before the first, back to the last span.
        gap: what stands between them.
        behind: what stands behind the second, up to the next time.
    """

    one: Token
    other: Token
    head: list[str]
    gap: list[str]
    behind: list[str]

    @property
    def core(self) -> list[str]:
        """Return what stands between the times and is not merely beside one of them."""
        return [text for text in self.gap if text not in _BESIDE and text not in words.BRACKETS]

    @property
    def before(self) -> str:
        """Return the last text before the times that is not merely beside them."""
        return next((text for text in reversed(self.head) if text not in _BESIDE and text != "<"), "")


def read_spans(tokens: Sequence[Token]) -> tuple[Interval, ...] | ParseFailure:
    """Return the spans that tokens name one after another.

    Returns:
        One to `MAX_INTERVALS` intervals, or the first failure: ``no_interval``, ``unpaired``, ``too_many``,
        ``not_seconds``, ``out_of_range``, ``reversed``.
    """
    places = times_of(tokens)
    if len(places) > 3 * MAX_INTERVALS:
        return ParseFailure("too_many")
    texts = [token.text for token in tokens]
    spans: list[Interval] = []
    begin = at = 0
    while at < len(places):
        if spans and _is_length(tokens, begin, places[at], spans[-1]):
            begin, at = places[at] + 1, at + 1
            continue
        if at + 1 == len(places):
            return ParseFailure("unpaired" if spans else "no_interval")
        first, second, end = *places[at : at + 2], places[at + 2] if at + 2 < len(places) else len(texts)
        around = texts[begin:first], texts[first + 1 : second], texts[second + 1 : end]
        span = _read_pair(_Pair(tokens[first], tokens[second], *around), spans[-1:])
        if isinstance(span, ParseFailure):
            return span
        spans.append(span)
        begin, at = second + 1, at + 2
    if not spans or not words.DENIALS.isdisjoint(texts):
        return ParseFailure("no_interval")
    plain = any(tokens[place].unit == "" for place in places)
    if "ff" in texts or (plain and not words.FOREIGN.isdisjoint(texts)):  # "MM:SS:FF" counts frames
        return ParseFailure("not_seconds")
    return tuple(spans) if len(spans) <= MAX_INTERVALS else ParseFailure("too_many")


def times_of(tokens: Sequence[Token]) -> list[int]:
    """Return the places of the times, without numbers of another sense: ``Event 1:``, ``confidence: 0.9``."""
    return [place for place, token in enumerate(tokens) if token.is_time and not _is_label(tokens, place)]


def _is_label(tokens: Sequence[Token], place: int) -> bool:
    """Return whether a plain number counts things or scores the answer, rather than being a time."""
    if tokens[place].unit != "":
        return False
    last = [
        token.text for token in tokens[max(0, place - 3) : place] if token.text not in (":", "#", "=", ".")
    ]
    before, behind = "".join(last[-1:]), "".join(token.text for token in tokens[place + 1 : place + 2])
    joined = behind in words.JOINS or behind in words.ANDS or behind in (",", ";", ")", "]")
    noun = behind.isascii() and behind.isalpha() and behind not in words.BEHIND_TIMES
    counts = noun or behind in words.COUNTERS or (before in words.LABELS and not joined)
    return before in words.SCORES or (tokens[place].text.isdigit() and counts)


def _is_length(tokens: Sequence[Token], begin: int, place: int, span: Interval) -> bool:
    """Return whether a time is the length of the span before it: ``5.0 to 12.0 (7 seconds)``."""
    head = [token.text for token in tokens[begin:place]]
    behind = "".join(token.text for token in tokens[place + 1 : place + 2])
    noted = "(" in head and tokens[place].unit in SCALES and behind in (")", "long", "in")
    named = not words.LENGTHS.isdisjoint(head)
    return (noted or named) and abs(tokens[place].seconds - span.length) <= 0.55


def _read_pair(pair: _Pair, last: Sequence[Interval]) -> Interval | ParseFailure:
    """Return the span of two times; ``last`` is the span before it, if any."""
    start, end = _same_unit(pair)
    if _labelled(pair, words.ENDS, words.STARTS):
        start, end = end, start
    elif last and not words.JOINS.isdisjoint(pair.head):
        return ParseFailure("no_interval")  # "1 to 2 to 3 to 4"
    elif _is_glued_label(pair) or _is_one_edge(pair) or not (_joined(pair) or _listed(pair, last)):
        return ParseFailure("no_interval")
    if "other" in (start.unit, end.unit) or _counts_other(pair) or _is_relative(pair):
        return ParseFailure("not_seconds")
    if pair.head[-1:] == [MINUS] or pair.gap[-1:] == [MINUS]:
        return ParseFailure("out_of_range")
    if math.isnan(start.seconds) or math.isnan(end.seconds):
        return ParseFailure("out_of_range")
    return Interval(start.seconds, end.seconds) if start.seconds <= end.seconds else ParseFailure("reversed")


def _same_unit(pair: _Pair) -> tuple[Token, Token]:
    """Return the two times, the first in the second's unit where it has none: ``5 to 12 minutes``.

    The reverse, ``5 minutes to 12``, does not say what the second counts.
    """
    one, other = pair.one, pair.other
    if one.unit == "" and other.unit in _LARGE_UNITS:
        one = one._replace(unit=other.unit, seconds=one.seconds * SCALES[other.unit])
    elif other.unit == "" and one.unit in _LARGE_UNITS:
        other = other._replace(unit="other")
    return one, other


def _joined(pair: _Pair) -> bool:
    """Return whether the texts before and between two times make them one span."""
    core, before = pair.core, pair.before
    if sum(text in words.JOINS for text in core) == 1 and words.PASSAGE.issuperset(core):
        return True
    if len(core) == 1 and core[0] in words.ANDS and before == "between":
        return True
    in_brackets = core in ([","], [";"]) and before in words.OPENING
    return in_brackets or _labelled(pair, words.STARTS, words.ENDS)


def _labelled(pair: _Pair, one: frozenset[str], other: frozenset[str]) -> bool:
    """Return whether the first time bears a label of ``one``, and the second a label of ``other``."""
    label = next((text for text in reversed(pair.head) if text in words.STARTS or text in words.ENDS), "")
    said = [text for text in pair.core if text not in words.GAP and text not in words.ANDS and text != "-"]
    return label in one and len(said) == 1 and said[0] in other


def _listed(pair: _Pair, last: Sequence[Interval]) -> bool:
    """Return whether two times that a comma or "and" joins are a span, as nothing else is said around them.

    ``3, 7`` may be a decimal comma. In a flat list, times rise.
    """
    around = pair.head + pair.behind
    if len(pair.core) != 1 or not words.SPARE.issuperset(around) or "at" in around:
        return False
    plain_comma = pair.core[0] in (",", ";") and all("." in time.text or time.unit for time in pair[:2])
    rises = not last or pair.one.seconds >= last[0].end
    return rises and (plain_comma or pair.core[0] in words.ANDS)


def _is_glued_label(pair: _Pair) -> bool:
    """Return whether a clock time may be a label and a number: ``Event 1:15.0 to 80.0``."""
    one_clock = (pair.one.unit == "clock") != (pair.other.unit == "clock")
    return one_clock and not words.LABELS.isdisjoint(pair.head)


def _is_one_edge(pair: _Pair) -> bool:
    """Return whether two times bound one edge of a span: ``starts between 5 and 6 s``, ``(5~6, 12~13)``."""
    label = next((text for text in reversed(pair.head[-4:]) if text in words.STARTS | words.ENDS), None)
    joined = sum(text in words.JOINS for text in pair.core) == len(pair.core) == 1 or pair.before == "between"
    grouped = pair.before == "(" and pair.behind[:1] == [","] and not words.JOINS.isdisjoint(pair.core)
    edge = not words.HAN_EDGES.isdisjoint(pair.behind[:2]) and words.HAN_EDGES.isdisjoint(pair.gap)
    chained = pair.before in words.JOINS and pair.before not in ("-", "~")
    numeral = pair.head[-1:] != [] and pair.head[-1] in words.HAN_NUMBERS
    return (label is not None and joined) or grouped or edge or chained or numeral


def _counts_other(pair: _Pair) -> bool:
    """Return whether two numbers count something: ``steps 3-5``, ``5 to 12 times``, ``the score is 5-12``."""
    whole = all(time.unit == "" and time.text.isdigit() for time in (pair.one, pair.other))
    scores = not words.SCORES.isdisjoint(pair.head[-2:])
    return whole and (pair.before in words.ONLY_LABELS or pair.behind[:1] == ["times"] or scores)


def _is_relative(pair: _Pair) -> bool:
    """Return whether two times count from elsewhere than the start: ``the last 5 to 10 seconds``."""
    behind = [text for text in pair.behind if text not in words.BRACKETS][:3]
    from_end = behind[:1] == ["from"] and not words.ENDS.isdisjoint(behind)
    of_all = behind[:1] == ["of"] and not words.PARTS_OF.isdisjoint(behind)
    said = [text for text in pair.head if text not in _BESIDE and text not in ("<", "between")]
    before = not words.NOT_FROM_START.isdisjoint(said[-1:]) or pair.head[-1:] == ["a"]
    return before or from_end or of_all or not words.ELSEWHERE.isdisjoint(behind[:1])
