"""Spans of time: one in an answer, or a list of them in a glue block."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcr1.records import Interval, ParseFailure
from vcr1.scoring.parsing.blocks import read_answer, read_glue
from vcr1.scoring.parsing.spans import read_spans, times_of
from vcr1.scoring.parsing.times import tokens_of

INTERVAL_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no answer behind the reasoning
    "no_interval",  # fewer than two times, two that nothing joins to a span, or a span that is denied
    "ambiguous",  # more times than one span has; decimal commas ("12,5 to 17,8") read as two numbers each
    "not_seconds",  # frames, percent, or times from elsewhere than the video's start
    "out_of_range",  # negative, over MAX_SECONDS or MAX_TIME_CHARS, or no clock time ("0:75")
    "reversed",  # the end lies before the start
)
"""All the reasons for which `parse_interval` fails."""

GLUE_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_glue",  # no <glue> block
    "no_interval",  # no two times, or two in a row that nothing joins to a span
    "unpaired",  # an odd number of times
    "too_many",  # over MAX_INTERVALS spans
    "not_seconds",  # as for one interval, and so are the next two
    "out_of_range",
    "reversed",
)
"""All the reasons for which `parse_intervals` fails."""

# "- ", "* ", "1. " or "1) " at the start of a line, unless the number can be a time.
_LIST_MARK = re.compile(
    r"^[ \t]*+(?:[-*\u2022]|[0-9]{1,2}[.)])[ \t]++(?!to\b|and\b|until\b|[-\u2010-\u2015\u2212]|~ |\Z)",
    re.MULTILINE,
)


def format_interval(interval: Interval) -> str:
    """Return an interval as answers write it, ``"12.5 to 17.8"``: seconds with one decimal.

    `parse_interval` reads it back within 0.05 s per end, for times in 0..`MAX_SECONDS`.
    """
    # The z turns "-0.0" into "0.0".
    return f"{interval.start:z.1f} to {interval.end:z.1f}"


def format_intervals(intervals: Sequence[Interval]) -> str:
    """Return intervals as glue blocks write them, ``"[(1.0, 2.5), (4.0, 6.5)]"``, in the given order.

    `parse_intervals` reads one to `MAX_INTERVALS` of them back within 0.05 s per end.
    """
    return "[" + ", ".join(f"({interval.start:z.1f}, {interval.end:z.1f})" for interval in intervals) + "]"


def parse_interval(text: str) -> Interval | ParseFailure:
    """Return the one time span, in seconds, of a completion's answer (see `read_answer`).

    The grammar, over words, marks, numbers with or without units, and clock times::

        span = time ("to" | dash | "~" | arrow | "until" | "till" | "through" | "到" | "至") time
             | ["between"] time "and" time
             | ("[" | "(") time ("," | ";") time
             | start-word time [","] end-word time      # "start time: 3.0, end time: 7.5", or the reverse
        time = S.f | M:SS.f | H:MM:SS.f | [H "h"] [M "min"] S "s" | …      # units in English or Chinese

    Quotes, Markdown marks and words such as "about" may stand beside the times, any text without further
    times around the span, and its length behind it. A span may be repeated. Two times that only a comma or
    "and" joins are a span where nothing else is said. A hyphen before a number is a sign only where no time
    precedes it: ``3-7`` and ``3 -7`` are spans, ``-3 to 5`` is out of range.

    Returns:
        The interval, or a failure with one of `INTERVAL_FAILURES`.
    """
    answer = read_answer(text)
    if isinstance(answer, ParseFailure):
        return answer
    tokens = tokens_of(_LIST_MARK.sub("", answer))
    spans = read_spans(tokens)
    if isinstance(spans, ParseFailure):
        several = len(times_of(tokens)) > 2 and spans.reason not in ("not_seconds", "out_of_range")
        return ParseFailure("ambiguous") if several else spans
    return spans[0] if len(set(spans)) == 1 else ParseFailure("ambiguous")


def parse_intervals(text: str) -> tuple[Interval, ...] | ParseFailure:
    """The time spans, in seconds, of a completion's glue block (see `read_glue`), in the order written.

    The block is one span of `parse_interval`'s grammar after another. Brackets around the list, commas,
    line breaks, list marks (``-``, ``*``, ``1.``) and words may stand between the spans, but nothing that
    would join them. A flat list of times in rising order is read as pairs. Spans may overlap or repeat; the
    measures take their union. One bad span fails the whole list: to drop it would reward the guess that it
    stands for.

    Returns:
        One to `MAX_INTERVALS` intervals, or a failure with one of `GLUE_FAILURES`.
    """
    glue = read_glue(text)
    return glue if isinstance(glue, ParseFailure) else read_spans(tokens_of(_LIST_MARK.sub("", glue)))
