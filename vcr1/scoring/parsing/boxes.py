"""Boxes of one object in answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from vcr1.records import Box, ParseFailure, Tracklet
from vcr1.scoring.parsing.blocks import read_answer
from vcr1.scoring.parsing.wording import HAN, fold, words_of

MAX_NUMBER_CHARS = 32
"""Longest number that is read, in characters; longer ones are never converted."""

MARGIN = 0.02
"""How far outside 0..1 a number may lie and still be meant as the frame's edge."""

BOX_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no answer behind the reasoning
    "no_boxes",  # no bracket or line of two numbers or more, and no corners by name
    "malformed",  # numbers that are not four corners a box, or frames out of order
    "wrong_count",  # more or fewer boxes than asked for
    "not_normalised",  # a number outside 0..1 by more than MARGIN, such as a pixel
    "reversed",  # more than half of the boxes have a second corner that is not right of and below the first
)
"""All the reasons for which `parse_boxes` fails."""

# Possessive: from each opening bracket the scan runs to the next bracket and gives nothing back.
_INNERMOST = re.compile(r"[\[({<]([^\[\](){}<>]*+)[\])}>]")
_SEPARATOR = re.compile(r"[\s,;]++")
_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_QUOTES = "\"'`*"
_MARKS = re.compile(
    r"<\|object_ref_start\|>[^<]*+<\|object_ref_end\|>|<ref>[^<]*+</ref>|</?[a-z]{1,20}>|<\|[a-z_]{1,20}\|>"
)
_LINE_LABEL = re.compile(
    r"\A(?:[-*\u2022][ \t]++)?+[*]{0,2}"
    r"(?:(?:(?:frame|box|第|框)[ _#]{0,2}[0-9]{1,4} ?帧?[*\" ]{0,4}:|[0-9]{1,2}[.):](?=[ \t]))[*\"' ]{0,4})?",
    re.IGNORECASE,
)
_NAME = r"(?:c?[xy]|[wh]|[xy]_?(?:[0-2]|c|min|max)|left|top|right|bottom|width|height)"
_NAMED = re.compile(rf"(?<![a-z])({_NAME})\b[^\w\[(+.-]{{1,6}}([+-]?[0-9.]++)", re.IGNORECASE)
_LIST_OF_NAMES = re.compile(rf"(?<![a-z]){_NAME}(?![a-z0-9_])", re.IGNORECASE)
# A label of the object in JSON may say anything.
_OBJECT_LABEL = re.compile(r"\"(?:label|object|name|ref)\"\s{0,4}:\s{0,4}\"[^\"]{0,200}\"", re.IGNORECASE)
_WORD = re.compile(rf"[{HAN}]|[^\W\d_{HAN}]{{2,}}|(?<![^\W{HAN}])[^\W\d_{HAN}](?![^\W{HAN}])")
# "box_2d" is Gemini's, which puts y before x; "bbox_2d" is Qwen's.
_ODD_MARKS = re.compile(r"(?<![a-z])box_2d|[%\u00d7\u2192\u2717\u274c\u2026~]|->|\.\.\.")
_CUT = re.compile(r"[\[(]\s{0,4}[+-]?[0-9.][^\[\](){}<>]{0,200}\Z")
_AROUND = words_of(
    "frame frames box boxes bbox bboxes time times timestamp id index label object answer array json boxed",
    "coordinates corners here are is the these two last final sure predicted tracking positions and of at in",
    "s sec t python",
    "x y xmin ymin xmax ymax left top right bottom",
    "\u7b2c \u5e27 \u6846 \u4e24 \u4e2a \u5206 \u522b \u662f \u548c \u7684 \u5728 \u79d2 \u65f6 \u95f4",
    "\u4e00 \u4e8c \u4e09 \u56db \u4e94 \u516d \u4e03 \u516b \u4e5d \u5341",
)
"""Words that may stand around boxes. Any other may say that they are no corners, or not the answer."""
_HAN_DIGITS = "\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341"
_PLACE = re.compile(
    rf"(?<![\w.])([0-9]{{1,4}}):([0-9]{{2}})(?![0-9:])|\u7b2c([0-9]{{1,4}}|[{_HAN_DIGITS}])"
    r"|(?<![\w.])([0-9]{1,4}(?:\.[0-9]{1,4})?)(?=s?(?:[^\w.]|\Z|\.[^0-9]))"
)
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)


def format_boxes(boxes: Tracklet, decimals: int = 3) -> str:
    """Return boxes as answers write them, ``"[[0.100, 0.200, 0.300, 0.400], …]"``, on one line.

    `parse_boxes` reads them back within half a unit of the last decimal, where they lie in the frame. A side
    that rounds to nothing is written one unit long, as a box without area earns nothing.
    """
    rows = []
    for box in boxes:
        (x0, x1), (y0, y1) = _side(box.x0, box.x1, decimals), _side(box.y0, box.y1, decimals)
        rows.append(", ".join(f"{value:z.{decimals}f}" for value in (x0, y0, x1, y1)))
    return "[" + ", ".join(f"[{row}]" for row in rows) + "]"


def _side(low: float, high: float, decimals: int) -> tuple[float, float]:
    """Return two rounded edges, at least a unit of the last decimal apart."""
    unit = 10.0**-decimals
    low, high = round(low, decimals), round(high, decimals)
    if high - low > unit / 2:
        return low, high
    return (low, low + unit) if low + unit <= 1 else (high - unit, high)


def parse_boxes(text: str, count: int) -> Tracklet | ParseFailure:
    """Return the boxes of a completion's answer (see `read_answer`), in the order written.

    A box is four numbers ``x0, y0, x1, y1`` that commas, semicolons or whitespace part:

    - an innermost pair of brackets of any kind around them, quotes and Markdown marks around a number aside;
    - two brackets of two numbers each, ``(x0, y0), (x1, y1)``, where all brackets hold two;
    - four numbers by name, in any order: ``x0, …``, ``x1, y1, x2, y2``, ``xmin, …``, ``left, top, …``;
    - where there is no bracket, a line, or what stands between two semicolons.

    A single bracket or line of four times as many numbers as boxes are asked for is that many boxes. Around
    them only known words may stand, such as labels of frames and keys of JSON, and names of corners in the
    order above: others may say that the boxes are something else, or are denied. Brackets with words or with
    a single number do not count. Labels and times of frames have to rise.

    Numbers are fractions of the frame. One up to `MARGIN` outside 0..1 is an edge that was overshot, and is
    moved to it. A number further outside is refused rather than rescaled: whether it counts pixels of the
    source, pixels of the resized frame or thousandths cannot be told from the text. A box with its corners
    the wrong way round becomes one without area at its first corner, so that it costs its own frame only.

    Args:
        text: the completion.
        count: how many boxes were asked for.

    Returns:
        Exactly ``count`` boxes, or a failure with one of `BOX_FAILURES`, by their order.
    """
    answer = read_answer(text, longest=200 + 100 * count)
    if isinstance(answer, ParseFailure):
        return answer
    rows = _rows(_MARKS.sub(" ", fold(answer)), count)
    if not rows:
        return ParseFailure("no_boxes")
    if any(len(row) != 4 for row in rows) or not _is_plain(_MARKS.sub(" ", fold(answer)), count):
        return ParseFailure("malformed")
    if len(rows) != count:
        return ParseFailure("wrong_count")
    if not all(-MARGIN <= value <= 1 + MARGIN for row in rows for value in row):
        return ParseFailure("not_normalised")
    rows = [[min(max(value, 0.0), 1.0) for value in row] for row in rows]
    if 2 * sum(x0 >= x1 or y0 >= y1 for x0, y0, x1, y1 in rows) > count:
        return ParseFailure("reversed")
    return tuple(map(_box, rows))


def _is_plain(answer: str, count: int) -> bool:
    """Return whether nothing around the boxes may make them something else, or put them in another order.

    Words, marks and names of corners are compared with those that are known; so what was not foreseen, such
    as another scale or a denial, is refused.
    """
    answer = _OBJECT_LABEL.sub(" ", answer)
    gaps, begin = [], 0
    pairs = 0
    for match in _INNERMOST.finditer(answer):
        numbers = _numbers(match[1])
        if len(numbers) > 1:
            gaps.append(answer[begin : match.start()])
            begin = match.end()
            pairs += len(numbers) == 2
    outside = " ".join([*gaps, answer[begin:]])
    words = {word.lower() for word in _WORD.findall(_LIST_OF_NAMES.sub(" ", outside))}
    joined = {"to"} if gaps and pairs == len(gaps) == 2 * count else set()
    names = [name.lower().replace("_", "") for name in _LIST_OF_NAMES.findall(outside)] if gaps else []
    orders = [tuple(names[start : start + 4]) for start in range(0, len(names), 4)]
    return (
        words <= _AROUND | joined
        and _ODD_MARKS.search(outside) is None
        and _CUT.search(answer[begin:]) is None
        and all(order in _CORNERS for order in orders)
        and _rises(gaps if gaps and pairs == 0 else gaps[::2])
    )


def _rises(gaps: Sequence[str]) -> bool:
    """Return whether the numbers of frames, or times, before the boxes rise, where each has one."""
    places = []
    for gap in gaps:
        for match in _PLACE.finditer(gap):
            minutes, seconds, ordinal, number = match.groups()
            if minutes is not None:
                place = 60 * float(minutes) + float(seconds)
            elif number is not None:
                place = float(number)
            else:
                place = float(_HAN_DIGITS.index(ordinal) if ordinal in _HAN_DIGITS else ordinal)
        if _PLACE.search(gap) is None:
            return True
        places.append(place)
    return all(a < b for a, b in pairwise(places))


def _box(row: Sequence[float]) -> Box:
    """Return a box, or one without area where its corners are the wrong way round."""
    x0, y0, x1, y1 = row
    return Box(x0, y0, x0, y0) if x0 > x1 or y0 > y1 else Box(x0, y0, x1, y1)


def _rows(answer: str, count: int) -> list[list[float]]:
    """Return the numbers of each box that an answer writes; a row of other than four numbers is none."""
    rows = [row for row in map(_numbers, _INNERMOST.findall(answer)) if len(row) > 1]
    if rows and all(len(row) == 2 for row in rows) and len(rows) % 2 == 0:
        rows = [first + second for first, second in zip(rows[::2], rows[1::2], strict=True)]
    if not rows:
        rows = _named_rows(answer)
    if not rows and not _INNERMOST.search(answer):
        lines = [_LINE_LABEL.sub("", line.strip()) for line in re.split(r"[\n;]", answer)]
        rows = [row for row in map(_numbers, lines) if len(row) > 1]
    if len(rows) == 1 and len(rows[0]) == 4 * count:
        rows = [rows[0][start : start + 4] for start in range(0, 4 * count, 4)]
    return rows


def _named_rows(answer: str) -> list[list[float]]:
    """Return boxes whose corners have names; a row is empty where the names are not those of two corners."""
    named = [(name.lower().replace("_", ""), value) for name, value in _NAMED.findall(answer)]
    rows = []
    for start in range(0, len(named), 4):
        values = dict(named[start : start + 4])
        names = next((names for names in _CORNERS if values.keys() == set(names)), ())
        rows.append(_numbers(" ".join(values[name] for name in names)))
    return rows


def _numbers(content: str) -> list[float]:
    """Return the numbers that a bracket's content lists; none where it holds anything else."""
    parts = [part.strip(_QUOTES) for part in _SEPARATOR.split(content)]
    numbers = [part for part in parts if part]
    if not all(len(part) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(part) for part in numbers):
        return []
    return [float(part) for part in numbers]  # overflows to infinity, which is out of range
