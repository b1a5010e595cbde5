"""Model text to values. The text is hostile: nothing here raises, evaluates or backtracks.

Every parser returns the value or a `ParseFailure` whose reason comes from the parser's fixed set, and
takes time linear in the text. Texts over `MAX_TEXT` characters are refused whole rather than read by
their tail: no completion within the token limit is near that long, so such a text is a runaway.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from vcr1.records import Interval, ParseFailure

MAX_TEXT = 100_000
"""Longest text that is read, in characters."""

MAX_SECONDS = 1e6
"""Latest time that is read, in seconds (eleven days)."""

MAX_TIME_CHARS = 32
"""Longest number or clock time that is read, in characters; longer ones are never converted."""

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

# ASCII only: in Unicode mode, ignoring case would let the long s of "an\u017fwer" pass.
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
_ANY_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE | re.ASCII)


def answer_block(text: str) -> str | ParseFailure:
    """Content of the last closed ``<answer>…</answer>`` block, stripped; tags in any case.

    The content holds no answer tag: a block starts at the last opening tag before its closing tag.
    An unclosed tag after a whole block does not hide that block.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_answer``.
    """
    if len(text) > MAX_TEXT:
        return ParseFailure("too_long")
    block, start = None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            block, start = (start, tag.start()), None
    return ParseFailure("no_answer") if block is None else text[block[0] : block[1]].strip()


def has_answer_format(text: str, think: bool) -> bool:
    """Whether the whole text is ``<think>…</think><answer>…</answer>``; without ``think``, the answer alone.

    Whitespace may stand around the text and between the two blocks. Each tag stands exactly once, in
    lower case as the prompts ask for it, and a stray tag in any case spoils the form. This is stricter
    than the released regular expression, whose lazy ``.*?`` lets a second answer block, or tags in the
    wrong order, hide inside the match: there the text could be rewarded for its form while a parser is
    free to pick either answer. The content is not judged; it may be empty.
    """
    if len(text) > MAX_TEXT:
        return False
    body = text.strip()
    wanted = ["<think>", "</think>"] * think + ["<answer>", "</answer>"]
    tags = list(islice(_ANY_TAG.finditer(body), len(wanted) + 1))
    if [tag[0] for tag in tags] != wanted or tags[0].start() != 0 or tags[-1].end() != len(body):
        return False
    return not think or not body[tags[1].end() : tags[2].start()].strip()


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
    """The span that a text's tokens name; the failures of `parse_interval` in the order of their checks."""
    places = [place for place, token in enumerate(tokens) if token.fields]
    if len(places) != 2:
        return ParseFailure("ambiguous" if len(places) > 2 else "no_interval")
    first, second = places
    texts = [token.text for token in tokens]
    if not _joined(texts[:first], texts[first + 1 : second]):
        return ParseFailure("no_interval")
    if any(_has_other_unit(tokens, place) for place in places):
        return ParseFailure("not_seconds")
    if any(place and texts[place - 1] == _MINUS for place in places):
        return ParseFailure("out_of_range")
    start, end = (_seconds(tokens[place].fields) for place in places)
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
