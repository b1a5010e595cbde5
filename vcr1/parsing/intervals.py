"""Spans of time: one in an answer block, or a list of them in a glue block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from vcr1.parsing.blocks import answer_block, glue_block
from vcr1.records import Interval, ParseFailure

MAX_SECONDS = 1e6
"""Latest time that is read, in seconds (eleven days)."""

MAX_TIME_CHARS = 32
"""Longest number or clock time that is read, in characters; longer ones are never converted."""

MAX_INTERVALS = 64
"""Most spans that one glue block may name."""

INTERVAL_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no closed <answer> block
    "no_interval",  # fewer than two times, or two that nothing joins to a span
    "ambiguous",  # three times or more; decimal commas ("12,5 to 17,8") read as two numbers, so they end here
    "not_seconds",  # a number followed by another unit: minutes, frames, percent
    "out_of_range",  # negative, over MAX_SECONDS or MAX_TIME_CHARS, or no clock time ("0:75")
    "reversed",  # the end lies before the start
)
"""All the reasons for which `parse_interval` fails."""

GLUE_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_glue",  # no closed <glue> block
    "no_interval",  # no two times, or two in a row that nothing joins to a span
    "unpaired",  # an odd number of times
    "too_many",  # over MAX_INTERVALS spans
    "not_seconds",  # as for one interval, and so are the next two
    "out_of_range",
    "reversed",
)
"""All the reasons for which `parse_intervals` fails."""


def format_interval(interval: Interval) -> str:
    """An interval as answers write it, ``"12.5 to 17.8"``: seconds with one decimal.

    `parse_interval` reads it back within 0.05 s per end, for times in 0..`MAX_SECONDS`.
    """
    # The z turns "-0.0" into "0.0".
    return f"{interval.start:z.1f} to {interval.end:z.1f}"


def parse_interval(text: str) -> Interval | ParseFailure:
    """The one time span, in seconds, of the text's last answer block.

    The grammar, over words, marks, numbers and clock times (``M:SS.f``, ``H:MM:SS.f``)::

        span = time ("to" | dash | "~" | arrow | "until" | "till" | "through") time
             | "between" time "and" time
             | ("[" | "(") time ("," | ";") time
             | start-word time ["and" | ","] end-word time      # "start time: 3.0, end time: 7.5"

    Seconds units, quotes, Markdown marks and words such as "about" may stand beside the times, and any
    text without further times around the span. Only ASCII digits are numbers. A hyphen before a number
    is a sign only where no time precedes it: ``3-7`` and ``3 -7`` are spans, ``-3 to 5`` is out of range.
    A comma outside brackets joins nothing, since it may be a decimal comma.

    Returns:
        The interval, or a failure with one of `INTERVAL_FAILURES`.
    """
    answer = answer_block(text)
    return answer if isinstance(answer, ParseFailure) else _read_span(_tokens(answer))


def format_intervals(intervals: Sequence[Interval]) -> str:
    """Intervals as glue blocks write them, ``"[(1.0, 2.5), (4.0, 6.5)]"``, in the given order.

    `parse_intervals` reads one to `MAX_INTERVALS` of them back within 0.05 s per end.
    """
    return "[" + ", ".join(f"({interval.start:z.1f}, {interval.end:z.1f})" for interval in intervals) + "]"


def parse_intervals(text: str) -> tuple[Interval, ...] | ParseFailure:
    """The time spans, in seconds, of the text's last glue block, in the order written.

    The block is one span of `parse_interval`'s grammar after another. Brackets around the list, commas,
    line breaks, list marks (``-``, ``*``, ``1.``) and words may stand between the spans, but nothing that
    would join them. Spans may overlap or repeat; the measures take their union. One bad span fails the
    whole list: to drop it would reward the guess that it stands for.

    Returns:
        One to `MAX_INTERVALS` intervals, or a failure with one of `GLUE_FAILURES`.
    """
    glue = glue_block(text)
    return glue if isinstance(glue, ParseFailure) else _read_spans(_tokens(_LIST_MARK.sub("", glue)))


class _Token(NamedTuple):
    """A word or mark (``text``), or a time that also has ``fields``: its numbers between the colons."""

    text: str
    fields: tuple[str, ...] = ()


# Possessive quantifiers: no part of a match is ever given back, so the scan is linear.
_TOKEN = re.compile(
    r"""
      (?P<time> [0-9]++ (?: :[0-9]++ )*+ (?: \.[0-9]++ )?+ | (?<![\w.]) \.[0-9]++ ) (?P<suffix> \w*+ )
    | (?P<word> \w++ )
    | (?P<sign> (?<!\w) [-\u2212] (?= \.?[0-9] ) )
    | (?P<dash> [-\u2010-\u2015\u2212]++ >?+ )
    | (?P<mark> [^\w\s] )
    """,
    re.VERBOSE,
)

# "- ", "* " or "1. " before a number or bracket at the start of a line.
_LIST_MARK = re.compile(r"^[ \t]*+(?:[-*\u2022]|[0-9]{1,2}\.)[ \t]++(?=[0-9(\[])", re.MULTILINE)

_SECONDS = frozenset({"s", "sec", "secs", "second", "seconds"})
_MINUTES = frozenset({"m", "min", "mins", "minute", "minutes"})
_HOURS = frozenset({"h", "hr", "hrs", "hour", "hours"})
_OTHER_UNITS = _MINUTES | _HOURS | {"ms", "millisecond", "milliseconds", "frame", "frames", "%"}
_MINUS = "minus sign"  # holds a space, so that no word of the text can be it
_FILLER = (
    _SECONDS
    | {"about", "approximately", "around", "roughly", "the", "at", "time", "mark"}
    | frozenset("`'\"*.:=\u2018\u2019\u201c\u201d")
    | {_MINUS}  # a sign joins nothing; the time behind it is refused for its range
)
_BRACKETS = frozenset("()[]")
_SPAN_JOINS = frozenset({"to", "-", "~", "\u2192", "until", "till", "through"})
_START_WORDS = frozenset(
    {"start", "starts", "started", "starting", "start_time", "begin", "begins", "beginning"}
)
_END_WORDS = frozenset({"end", "ends", "ended", "ending", "end_time", "finish", "finishes", "stop", "stops"})
_LABEL_GLUE = _FILLER | _BRACKETS | frozenset({"and", "is", "it", ",", ";", "-"})


def _tokens(text: str) -> list[_Token]:
    """Words (lower case), marks and times of a text; all dashes read ``-`` or, as signs, `_MINUS`."""
    tokens: list[_Token] = []
    for match in _TOKEN.finditer(text):
        kind, found = match.lastgroup, match[0]
        if kind == "suffix":
            tokens.extend(_time_tokens(match["time"], match["suffix"].lower()))
        elif kind == "sign":
            tokens.append(_Token("-" if _ends_in_time(tokens) else _MINUS))
        else:
            tokens.append(_Token("-" if kind == "dash" else found.lower()))
    return tokens


def _time_tokens(time: str, suffix: str) -> list[_Token]:
    """A time and the unit glued to it, or one word where the suffix is no unit (``2nd``, ``1e5``)."""
    if not suffix:
        return [_Token(time, tuple(time.split(":")))]
    if suffix in _SECONDS or suffix in _OTHER_UNITS:
        return [_Token(time, tuple(time.split(":"))), _Token(suffix)]
    return [_Token(time + suffix)]


def _ends_in_time(tokens: Sequence[_Token]) -> bool:
    """Whether the last token is a time, or a unit behind one."""
    if tokens and tokens[-1].text in _SECONDS:
        tokens = tokens[-2:-1]
    return bool(tokens) and bool(tokens[-1].fields)


def _read_span(tokens: Sequence[_Token]) -> Interval | ParseFailure:
    """The one span that a text's tokens name; the failures of `parse_interval`, in this order."""
    places = [place for place, token in enumerate(tokens) if token.fields]
    if len(places) != 2:
        return ParseFailure("ambiguous" if len(places) > 2 else "no_interval")
    return _read_pair(tokens, 0, places[0], places[1])


def _read_spans(tokens: Sequence[_Token]) -> tuple[Interval, ...] | ParseFailure:
    """The spans that a text's tokens name one after another; the first failure of `parse_intervals`."""
    places = [place for place, token in enumerate(tokens) if token.fields]
    if len(places) > 2 * MAX_INTERVALS:
        return ParseFailure("too_many")
    if len(places) % 2 or not places:
        return ParseFailure("unpaired" if len(places) > 1 else "no_interval")
    spans: list[Interval] = []
    behind = 0
    for first, second in zip(places[::2], places[1::2], strict=True):
        if spans and any(token.text in _SPAN_JOINS for token in tokens[behind:first]):
            return ParseFailure("no_interval")  # "1 to 2 to 3 to 4"
        span = _read_pair(tokens, behind, first, second)
        if isinstance(span, ParseFailure):
            return span
        spans.append(span)
        behind = second + 1
    return tuple(spans)


def _read_pair(tokens: Sequence[_Token], begin: int, first: int, second: int) -> Interval | ParseFailure:
    """The span of the times at two places; of the text before them, only what follows ``begin`` counts."""
    texts = [token.text for token in tokens[begin:second]]
    if not _joined(texts[: first - begin], texts[first - begin + 1 :]):
        return ParseFailure("no_interval")
    if any(_has_other_unit(tokens, place) for place in (first, second)):
        return ParseFailure("not_seconds")
    if any(place and tokens[place - 1].text == _MINUS for place in (first, second)):
        return ParseFailure("out_of_range")
    start, end = (_seconds(tokens[place].fields) for place in (first, second))
    if start is None or end is None:
        return ParseFailure("out_of_range")
    return Interval(start, end) if start <= end else ParseFailure("reversed")


def _joined(head: Sequence[str], gap: Sequence[str]) -> bool:
    """Whether the texts before (``head``) and between (``gap``) two times make them one span."""
    joins = [text for text in gap if text not in _FILLER and text not in _OTHER_UNITS]
    unbracketed = [text for text in joins if text not in _BRACKETS]
    if len(unbracketed) == 1 and unbracketed[0] in _SPAN_JOINS:
        return True
    before = next((text for text in reversed(head) if text not in _FILLER), "")
    if joins == ["and"] and before == "between":
        return True
    if joins in ([","], [";"]) and before in ("(", "["):
        return True
    labels = [text for text in joins if text not in _LABEL_GLUE]
    return len(labels) == 1 and labels[0] in _END_WORDS and any(text in _START_WORDS for text in head)


def _has_other_unit(tokens: Sequence[_Token], place: int) -> bool:
    """Whether a plain number carries a unit other than seconds; a clock time (``1:05 min``) needs none."""
    behind = tokens[place + 1].text if place + 1 < len(tokens) else ""
    return len(tokens[place].fields) == 1 and behind in _OTHER_UNITS


def _seconds(fields: Sequence[str]) -> float | None:
    """Seconds of ``S.f``, ``M:S.f`` or ``H:M:S.f``; None out of range or where no clock shows it."""
    if len(fields) > 3 or sum(map(len, fields)) > MAX_TIME_CHARS:
        return None
    values = [float(field) for field in fields]
    if any(value >= 60 for value in values[1:]):
        return None
    total = 0.0
    for value in values:
        total = 60 * total + value
    return total if total <= MAX_SECONDS else None
