"""Spans of time: one in an answer, or a list of them in a glue block."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from vcr1.parsing.blocks import read_answer, read_glue
from vcr1.parsing.times import FOREIGN, MINUS, SCALES, Token, tokens_of
from vcr1.records import Interval, ParseFailure

MAX_INTERVALS = 64
"""Most spans that one glue block may name."""

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
    r"^[ \t]*+(?:[-*\u2022]|[0-9]{1,2}[.)])[ \t]++(?!to\b|and\b|until\b|[-~\u2010-\u2015\u2212]|\Z)",
    re.MULTILINE,
)


def _words(*groups: str) -> frozenset[str]:
    return frozenset(word for group in groups for word in group.split())


_OPENING = _words("( [ { <")
_BRACKETS = _OPENING | _words(") ] } >")
_JOINS = _words("to until till til through - ~ 到 至 直到")
_ANDS = _words("and & 和 与")
_STARTS = _words("start starts started starting begin begins began beginning 开始 起始")
_ENDS = _words("end ends ended ending finish finishes finished stop stops 结束 终止")
# What may stand beside a time. A sign joins nothing; the time behind it is refused for its range.
_BESIDE = _words(
    "the at t time times timestamp mark point second seconds sec s . : =",
    "about approximately approx around roughly circa 第 约 大 为 在 是 于 时 间 点 刻 处 的 左 右 从",
) | {MINUS}
_GAP = _words("it is , ; | and continues continuing lasts lasting goes going runs up on all way 并 持 续 一")
_PASSAGE = _JOINS | _GAP | _STARTS  # between the two times of "从 5 秒开始，到 12 秒"
# What may stand around two times that only a comma or "and" joins; instants have other words around them.
_SPARE = _BESIDE | _BRACKETS
_SPARE |= _words(
    "answer final event occurs happens interval span segment clip window timestamps range from in"
)
_SPARE |= _words("between is are video , ; - 之间")
_LABELS = _words(
    "event segment span clip scene part step action moment interval section number shot id 片段 事件"
)
_SCORES = _words("confidence score probability")
_COUNTERS = _words("段 个 次")
_LENGTHS = _words("duration lasting lasts length total for 共 续")
_NOT_FROM_START = _words("last final remaining 最后 倒数")
_ELSEWHERE = _words("before after later earlier prior ago 前 后 之前 之后 以前 以后")
_DENIALS = _words("not never cannot no isn wasn doesn didn don neither nor except outside 不 没有 没 非 无")


def format_interval(interval: Interval) -> str:
    """An interval as answers write it, ``"12.5 to 17.8"``: seconds with one decimal.

    `parse_interval` reads it back within 0.05 s per end, for times in 0..`MAX_SECONDS`.
    """
    # The z turns "-0.0" into "0.0".
    return f"{interval.start:z.1f} to {interval.end:z.1f}"


def format_intervals(intervals: Sequence[Interval]) -> str:
    """Intervals as glue blocks write them, ``"[(1.0, 2.5), (4.0, 6.5)]"``, in the given order.

    `parse_intervals` reads one to `MAX_INTERVALS` of them back within 0.05 s per end.
    """
    return "[" + ", ".join(f"({interval.start:z.1f}, {interval.end:z.1f})" for interval in intervals) + "]"


def parse_interval(text: str) -> Interval | ParseFailure:
    """The one time span, in seconds, of a completion's answer (see `read_answer`).

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
    spans = _read_spans(tokens)
    if isinstance(spans, ParseFailure):
        several = len(_times(tokens)) > 2 and spans.reason not in ("not_seconds", "out_of_range")
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
    return glue if isinstance(glue, ParseFailure) else _read_spans(tokens_of(_LIST_MARK.sub("", glue)))


def _read_spans(tokens: Sequence[Token]) -> tuple[Interval, ...] | ParseFailure:
    """The spans that tokens name one after another, or the first failure of `parse_intervals`."""
    places = _times(tokens)
    if len(places) > 3 * MAX_INTERVALS:
        return ParseFailure("too_many")
    spans: list[Interval] = []
    behind = at = 0
    while at < len(places):
        if spans and _is_length(tokens, behind, places[at], spans[-1]):
            behind, at = places[at] + 1, at + 1
            continue
        if at + 1 == len(places):
            return ParseFailure("unpaired" if spans else "no_interval")
        span = _read_pair(tokens, behind, places[at], places[at + 1], spans[-1:])
        if isinstance(span, ParseFailure):
            return span
        spans.append(span)
        behind, at = places[at + 1] + 1, at + 2
    if not spans or any(token.text in _DENIALS for token in tokens):
        return ParseFailure("no_interval")
    return tuple(spans) if len(spans) <= MAX_INTERVALS else ParseFailure("too_many")


def _times(tokens: Sequence[Token]) -> list[int]:
    """The places of the times, without numbers of another sense: ``Event 1:``, ``confidence: 0.9``."""
    return [place for place, token in enumerate(tokens) if token.is_time and not _is_label(tokens, place)]


def _is_label(tokens: Sequence[Token], place: int) -> bool:
    """Whether a plain number counts things or scores the answer, rather than being a time."""
    if tokens[place].unit != "":
        return False
    before = next(
        (token.text for token in reversed(tokens[max(0, place - 3) : place]) if token.text not in ":#=."), ""
    )
    behind = tokens[place + 1].text if place + 1 < len(tokens) else ""
    if before in _SCORES:
        return True
    joined = behind in _JOINS or behind in _ANDS or behind in (",", ";", ")", "]")
    return tokens[place].text.isdigit() and (behind in _COUNTERS or (before in _LABELS and not joined))


def _is_length(tokens: Sequence[Token], behind: int, place: int, span: Interval) -> bool:
    """Whether a time is the length of the span before it: ``5.0 to 12.0 (7 seconds)``."""
    head = [token.text for token in tokens[behind:place]]
    after = tokens[place + 1].text if place + 1 < len(tokens) else ""
    noted = "(" in head and tokens[place].unit in SCALES and after in (")", "long", "in")
    named = any(text in _LENGTHS for text in head)
    return (noted or named) and abs(tokens[place].seconds - span.length) <= 0.55


def _read_pair(
    tokens: Sequence[Token], begin: int, first: int, second: int, last: Sequence[Interval]
) -> Interval | ParseFailure:
    """The span of the times at two places.

    Of the text before them, only what follows ``begin`` counts; ``last`` is the span before it, if any.
    """
    head = [token.text for token in tokens[begin:first]]
    gap = [token.text for token in tokens[first + 1 : second]]
    tail = next((at for at in range(second + 1, len(tokens)) if tokens[at].is_time), len(tokens))
    around = head + [token.text for token in tokens[second + 1 : tail]]
    start, end = _same_unit(tokens[first], tokens[second])
    if _is_backward(head, gap):
        start, end = end, start
    elif last and any(text in _JOINS for text in head):
        return ParseFailure("no_interval")  # "1 to 2 to 3 to 4"
    elif _is_glued_label(head, start, end):
        return ParseFailure("no_interval")
    elif not _joined(head, gap) and not _listed(around, gap, start, end, last):
        return ParseFailure("no_interval")
    if _counts_other(tokens, first, second) or _is_relative(tokens, first, second):
        return ParseFailure("not_seconds")
    if any(place and tokens[place - 1].text == MINUS for place in (first, second)):
        return ParseFailure("out_of_range")
    if math.isnan(start.seconds) or math.isnan(end.seconds):
        return ParseFailure("out_of_range")
    return Interval(start.seconds, end.seconds) if start.seconds <= end.seconds else ParseFailure("reversed")


def _is_glued_label(head: Sequence[str], start: Token, end: Token) -> bool:
    """Whether a clock time beside a plain number may be a label and a number: ``Event 1:15.0 to 80.0``."""
    return (start.unit == "clock") != (end.unit == "clock") and any(text in _LABELS for text in head)


def _same_unit(first: Token, second: Token) -> tuple[Token, Token]:
    """Two times, the first in the second's unit where it has none: ``5 to 12 minutes``."""
    if first.unit == "" and second.unit in SCALES and second.unit != "s":
        first = first._replace(unit=second.unit, seconds=first.seconds * SCALES[second.unit])
    elif second.unit == "" and first.unit in SCALES and first.unit != "s":
        second = second._replace(unit="other")
    return first, second


def _joined(head: Sequence[str], gap: Sequence[str]) -> bool:
    """Whether the texts before (``head``) and between (``gap``) two times make them one span."""
    core = [text for text in gap if text not in _BESIDE and text not in _BRACKETS]
    if sum(text in _JOINS for text in core) == 1 and all(text in _PASSAGE for text in core):
        return True
    before = next((text for text in reversed(head) if text not in _BESIDE), "")
    if len(core) == 1 and (
        core[0] in _ANDS and before == "between" or core[0] in ",;" and before in _OPENING
    ):
        return True
    return _labelled(head, core, _STARTS, _ENDS)


def _is_backward(head: Sequence[str], gap: Sequence[str]) -> bool:
    """Whether labels name the end before the start."""
    return _labelled(
        head, [text for text in gap if text not in _BESIDE and text not in _BRACKETS], _ENDS, _STARTS
    )


def _labelled(head: Sequence[str], core: Sequence[str], one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether the time behind ``head`` bears a label of ``one``, and the next, behind ``core``, of ``other``."""
    label = next((text for text in reversed(head) if text in _STARTS or text in _ENDS), "")
    words = [text for text in core if text not in _GAP and text not in _ANDS and text != "-"]
    return label in one and len(words) == 1 and words[0] in other


def _listed(
    around: Sequence[str], gap: Sequence[str], start: Token, end: Token, last: Sequence[Interval]
) -> bool:
    """Whether two times that a comma or "and" joins are a span, as nothing else is said around them.

    ``3, 7`` may be a decimal comma. In a flat list, times rise.
    """
    core = [text for text in gap if text not in _BESIDE and text not in _BRACKETS]
    if len(core) != 1 or any(text not in _SPARE for text in around):
        return False
    rises = not last or start.seconds >= last[0].end
    plain_comma = core[0] in ",;" and any("." in time.text or time.unit for time in (start, end))
    return rises and (plain_comma or core[0] in _ANDS) and "at" not in around


def _counts_other(tokens: Sequence[Token], first: int, second: int) -> bool:
    """Whether two numbers count frames or percent: by their unit, or by a word where they have no unit."""
    units = [tokens[first].unit, tokens[second].unit]
    if "other" in units or tokens[first].unit in ("min", "h", "ms") and tokens[second].unit == "":
        return True
    before = [tokens[place - 1].text for place in (first, second) if place]
    return any(text in FOREIGN for text in before) or (
        "" in units and any(token.text in FOREIGN for token in tokens)
    )


def _is_relative(tokens: Sequence[Token], first: int, second: int) -> bool:
    """Whether two times count from elsewhere than the start of the video: ``the last 5 to 10 seconds``."""
    behind = [token.text for token in tokens[second + 1 : second + 4]]
    before = tokens[first - 1].text if first else ""
    from_end = behind[:1] == ["from"] and any(text in _ENDS for text in behind)
    return before in _NOT_FROM_START or bool(behind) and behind[0] in _ELSEWHERE or from_end
