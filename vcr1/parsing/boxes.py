"""Boxes of one object in answer blocks."""

from __future__ import annotations

import re

from vcr1.parsing.blocks import answer_block
from vcr1.records import Box, ParseFailure, Tracklet

MAX_NUMBER_CHARS = 32
"""Longest number that is read, in characters; longer ones are never converted."""

MARGIN = 0.02
"""How far outside 0..1 a number may lie and still be meant as the frame's edge."""

BOX_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no closed <answer> block
    "no_boxes",  # no bracket around two numbers or more
    "malformed",  # a bracket around numbers that are not four
    "wrong_count",  # more or fewer boxes than asked for
    "not_normalised",  # a number outside 0..1 by more than MARGIN, such as a pixel
    "reversed",  # a second corner that is not right of and below the first: x0 >= x1 or y0 >= y1
)
"""All the reasons for which `parse_boxes` fails."""

# Possessive: from each opening bracket the scan runs to the next bracket and gives nothing back.
_INNERMOST = re.compile(r"[\[(]([^\[\]()]*+)[\])]")
_SEPARATOR = re.compile(r"[\s,;]++")
_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_QUOTES = "\"'`*"


def format_boxes(boxes: Tracklet, decimals: int = 3) -> str:
    """Boxes as answers write them, ``"[[0.100, 0.200, 0.300, 0.400], …]"``, on one line.

    `parse_boxes` reads them back within half a unit of the last decimal, where they lie in the frame. A side
    that rounds to nothing is written one unit long, as no box without area is read.
    """
    rows = []
    for box in boxes:
        (x0, x1), (y0, y1) = _side(box.x0, box.x1, decimals), _side(box.y0, box.y1, decimals)
        rows.append(", ".join(f"{value:z.{decimals}f}" for value in (x0, y0, x1, y1)))
    return "[" + ", ".join(f"[{row}]" for row in rows) + "]"


def _side(low: float, high: float, decimals: int) -> tuple[float, float]:
    """Two rounded edges, at least a unit of the last decimal apart."""
    unit = 10.0**-decimals
    low, high = round(low, decimals), round(high, decimals)
    if high - low > unit / 2:
        return low, high
    return (low, low + unit) if low + unit <= 1 else (high - unit, high)


def parse_boxes(text: str, count: int) -> Tracklet | ParseFailure:
    """The boxes of the text's last answer block, in the order written.

    A box is an innermost pair of brackets, square or round, around four numbers ``x0, y0, x1, y1`` that
    commas, semicolons or whitespace part; quotes and Markdown marks around a number do not count. What
    stands outside of these brackets does not either, so that outer brackets, code fences, line breaks,
    keys and labels (``frame 1:``) may be there or not; nor do brackets with words, such as ``(frame 1)``,
    or with a single number.

    A single bracket around four times as many numbers as boxes are asked for is that many boxes.

    Numbers are fractions of the frame. One up to `MARGIN` outside 0..1 is an edge that was overshot, and is
    moved to it. A number further outside is refused rather than rescaled: whether it counts pixels of the
    source, pixels of the resized frame or thousandths cannot be told from the text.

    Args:
        text: the completion.
        count: how many boxes were asked for.

    Returns:
        Exactly ``count`` boxes with an area, or a failure with one of `BOX_FAILURES`, by their order.
    """
    answer = answer_block(text)
    if isinstance(answer, ParseFailure):
        return answer
    rows = [row for row in map(_numbers, _INNERMOST.findall(answer)) if len(row) > 1]
    if not rows:
        return ParseFailure("no_boxes")
    if len(rows) == 1 and len(rows[0]) == 4 * count:
        rows = [rows[0][start : start + 4] for start in range(0, 4 * count, 4)]
    if any(len(row) != 4 for row in rows):
        return ParseFailure("malformed")
    if len(rows) != count:
        return ParseFailure("wrong_count")
    if not all(-MARGIN <= value <= 1 + MARGIN for row in rows for value in row):
        return ParseFailure("not_normalised")
    rows = [[min(max(value, 0.0), 1.0) for value in row] for row in rows]
    if any(x0 >= x1 or y0 >= y1 for x0, y0, x1, y1 in rows):
        return ParseFailure("reversed")
    return tuple(Box(*box) for box in rows)


def _numbers(content: str) -> list[float]:
    """The numbers that a bracket's content lists; none where it holds anything else."""
    parts = [part.strip(_QUOTES) for part in _SEPARATOR.split(content)]
    numbers = [part for part in parts if part]
    if not all(len(part) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(part) for part in numbers):
        return []
    return [float(part) for part in numbers]  # overflows to infinity, which is out of range
