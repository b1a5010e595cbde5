"""Words, marks and times of a text: the tokens that spans of time are made of."""

from __future__ import annotations

import math
import re
from itertools import islice
from typing import NamedTuple

from vcr1.scoring.parsing.wording import HAN, fold

MAX_SECONDS = 1e6
"""Latest time that is read, in seconds (eleven days)."""

MAX_TIME_CHARS = 32
"""Longest number or clock time that is read, in characters; longer ones are never converted."""

MAX_TOKENS = 4_000
"""Most tokens of a text that is read; no answer that names spans is nearly that long."""

MINUS = "minus sign"
"""Text of the token for a sign; it holds a space, so that no word of a text can be it."""

_UNITS = {
    "ms": r"ms|milliseconds?|毫秒",
    "s": r"s|secs?|seconds?|秒钟?",
    "min": r"m|mins?|minutes?|分钟?",
    "h": r"h|hrs?|hours?|小时",
    "other": r"frames?|fps|%|percent|帧",
}
SCALES = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
"""Seconds of each unit of time."""

_UNIT = "|".join(f"(?P<{name}>{words})" for name, words in _UNITS.items())
# Possessive quantifiers: no part of a match is ever given back, so the scan is linear.
_TOKEN = re.compile(
    rf"""
      (?P<time>
          [0-9]++:[0-9]{{2}}:[0-9]{{2}},[0-9]{{3}}(?![0-9])
        | [0-9]++ (?: :[0-9]{{2,}} )*+ (?: \.[0-9]++ )?+
        | (?<![\w.]) \.[0-9]++
      )
      (?: [ \t]{{0,3}}-?[ \t]{{0,3}} (?:{_UNIT}) (?![a-z_]) | (?P<junk> [^\W{HAN}]*+ ) )
    | (?P<word> [^\W\d{HAN}] [^\W{HAN}]*+ )
    | (?P<han> 直到|开始|起始|结束|终止|之间|之前|之后|以前|以后|最后|倒数|没有|片段|事件|[{HAN}] )
    | (?P<symbol> \w )
    | (?P<sign> (?<!\w) [-\u2212] (?= \.?[0-9] ) )
    | (?P<dash> (?: [-\u2010-\u2015\u2212]++ | = ) >?+ | \u2192 )
    | (?P<mark> [^\w\s] )
    """,
    re.VERBOSE,
)
# "片段2：20.0" is a label and a time, no clock.
_LABEL = re.compile(r"(片段|事件|第)([0-9]{1,3})：")
_ABOUT = re.compile(r"\n[ \t]*+~")  # at the start of a line, it joins nothing
_LATEX = re.compile(r"\\[a-zA-Z]{1,12}|\\[,;:! ]|[*`$\"']")


class Token(NamedTuple):
    """A word or mark, or a time.

    Attributes:
        text: lower case; of a time, its digits.
        unit: ``""`` for a number without one, ``"clock"``, a key of `SCALES`, or ``"other"``, such as frames;
            None for words and marks.
        seconds: NaN out of range, or where no clock shows it.
    """

    text: str
    unit: str | None = None
    seconds: float = math.nan

    @property
    def is_time(self) -> bool:
        """Return whether this is a time."""
        return self.unit is not None


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text; all dashes and arrows read ``-`` or, as signs, `MINUS`.

    Markdown, LaTeX and quotes leave no token. ``1 min 5 s`` is one time, and so is ``1分5秒``.
    A mark for "about", ``~5.0``, leaves none either, unless it joins two times. A text of more than
    `MAX_TOKENS` words, marks and times has no tokens.
    """
    plain = fold(_LABEL.sub(r"\1\2: ", text)).lower()
    marks = _LATEX.sub(" ", _ABOUT.sub("\n", plain.replace("n't", " not").replace("\\setminus", " minus ")))
    matches = list(islice(_TOKEN.finditer(marks), MAX_TOKENS + 1))
    tokens: list[Token] = []
    for match in matches if len(matches) <= MAX_TOKENS else ():
        kind, found = match.lastgroup, match[0]
        if match["time"]:
            tokens.append(_time(match))
            _merge(tokens)
        elif kind == "word":
            tokens.extend(Token(part) for part in found.split("_") if part)
        elif kind == "sign":
            tokens.append(Token("-" if _ends_in_time(tokens) else MINUS))
        elif kind == "dash":
            tokens.append(Token("=" if found == "=" else "-"))
        elif found not in "~\u2248" or _ends_in_time(tokens):
            tokens.append(Token(found))
    return tokens


def _time(match: re.Match[str]) -> Token:
    """Return a number with its unit, or a word where something else is glued to it (``2nd``, ``1e5``)."""
    if match["junk"]:
        return Token(match[0])
    digits = match["time"].replace(",", ".")
    unit = next((name for name in _UNITS if match[name]), "")
    if ":" in digits:
        return Token(digits, "other" if unit == "other" else "clock", _clock(digits.split(":")))
    value = float(digits) * SCALES.get(unit, 1.0) if len(digits) <= MAX_TIME_CHARS else math.nan
    return Token(digits, unit, value if value <= MAX_SECONDS else math.nan)


def _clock(fields: list[str]) -> float:
    """Return seconds of ``M:S.f`` or ``H:M:S.f``."""
    if len(fields) > 3 or sum(map(len, fields)) > MAX_TIME_CHARS:
        return math.nan
    values = [float(field) for field in fields]
    if any(value >= 60 for value in values[1:]):
        return math.nan
    total = 0.0
    for value in values:
        total = 60 * total + value
    return total if total <= MAX_SECONDS else math.nan


def _merge(tokens: list[Token]) -> None:
    """Make one time of the last two tokens if they are one, ``1 min 5 s``; an "and" may part them."""
    gap = 2 if len(tokens) > 2 and tokens[-2].text in ("and", "零", "又") else 1
    if len(tokens) <= gap:
        return
    large, small = tokens[-1 - gap], tokens[-1]
    units = (large.unit, small.unit)
    if units in (("h", "min"), ("min", "s"), ("h", "s")) and small.seconds < SCALES[str(large.unit)]:
        tokens[-1 - gap :] = [small._replace(seconds=large.seconds + small.seconds)]


def _ends_in_time(tokens: list[Token]) -> bool:
    """Return whether the last token is a time, or a bracket that closes behind one."""
    closed = 1 if tokens and tokens[-1].text in (")", "]", ">") else 0
    return len(tokens) > closed and tokens[-1 - closed].is_time
