"""Marks around the words: what full-width, Markdown, LaTeX and JSON writing of the same answer share."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import NamedTuple

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MARKS = str.maketrans(
    "\u3000\u3001\u3002\u3010\u3011\u300c\u300d\u301c\u2018\u2019\u201c\u201d\u2033\u2032",
    ' ,.[]""~\'\'"""\'',
)

HAN = "\u3400-\u9fff"
"""Chinese characters, as a range for the inside of a character class."""

# Possessive or bounded: every pattern here takes linear time.
_WRAPPINGS = (
    re.compile(r"```[ \t]*+[a-zA-Z]{0,10}[ \t]*+\n(.*?)```", re.DOTALL),
    re.compile(r"```(?![a-z]{1,10}\n)([^`]*+)```"),
    re.compile(r"\*\*((?:[^*]|\*(?!\*))*+)\*\*"),
    re.compile(r"`([^`]*+)`"),
    re.compile(r'"([^"]*+)"'),
    re.compile("\u201c([^\u201c\u201d]*+)\u201d"),
    re.compile(r"'([^']*+)'"),
    re.compile(r"\$\$?+([^$]*+)\$\$?+"),
    re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)[ \t]*+\{([^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+)\}"),
    re.compile(
        r'\{\s*+"(?i:[a-z_ ]{0,20}answer|option|choice|letter|caption|description|text|quality|class|label'
        r'|category|response|result|output|prediction|event|time|timestamp|span|interval)"\s*+:\s*+"((?:[^"\\]|\\.)*+)"\s*+,?+\s*+\}',
        re.DOTALL,
    ),
)
_JSON_ANSWER = re.compile(r'"(?:answer|option|choice)"\s*+:\s*+"((?:[^"\\]|\\.)*+)"', re.IGNORECASE)
_MOST_WRAPPINGS = 6

_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|no|cannot|excludes?|except|than|below|above|hardly|barely|nearly|almost|but|without"
    r"|lacks?|far from|rules? out|ruled out|eliminates?|eliminated)\b|n['\u2019]t\b|[不非无没]|排除)"
    r"(?:[^\w\n]{0,4}(?:the|a|an|be|answer|option|choice|of|in|is|是|选|有|为)\b)*[^\w\n]{0,4}$",
    re.IGNORECASE,
)
_REFUTED = re.compile(
    r"[^\w\n]{0,4}(?:(?:is|was|are|be|looks|seems)\b|(?:can|could|does|do|is|was)(?=n['\u2019]t))?"
    r"[^\w\n]{0,4}(?:(?:clearly|also|definitely|probably)[ ])?"
    r"(?:(?:not|wrong|incorrect|false|impossible|unlikely|excluded|out)\b|n['\u2019]t\b|cannot\b|不|错|是错|有误)",
    re.IGNORECASE,
)


_CORRECTED = re.compile(
    r"\b(?:wait|actually|correction|corrected|sorry|i mean|scratch that|on second thought|rather)\b|->"
    r"|[\u2192\u2717\u2718\u274c\u2716]|~~"
    r"|\u66f4\u6b63|\u7ea0\u6b63|\u62b1\u6b49",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile("[\n;!\u3002]")
_DOUBTED = re.compile(
    r"\b(?:not|no|never|neither|nor|none|cannot|without|except|wrong|incorrect|false|invalid|impossible|unlikely|least"
    r"|worse|worst|doubt|doubts|exclude[sd]?|excluded|eliminated?|rule[sd]?|contradicts?|opposite|stop|stops|stopped"
    r"|avoids?|avoided|fail|fails|failed|lacks?|refutes?|misses|either|maybe|could|might|perhaps|possibly)\b|n['\u2019]t\b"
    r"|\u4e0d|\u975e|\u65e0|\u6ca1|\u9519|\u6392\u9664|\u9664|\u4ee5\u5916|\u8c08\u4e0d|\u7b97\u4e0d",
    re.IGNORECASE,
)


class _Doubts(NamedTuple):
    """Where an answer ends its sentences and doubts what it says.

    Attributes:
        corrected: it takes back something, anywhere.
        edges: places of the marks that end a sentence, from -1 to the text's length.
        begins: the first characters of the doubts, rising.
        ends: behind the last ones.
    """

    corrected: bool
    edges: list[int]
    begins: list[int]
    ends: list[int]


@lru_cache(maxsize=2)
def _doubts(text: str) -> _Doubts:
    """Read a text once for all of its places: per place, a long answer would take quadratic time."""
    edges = [match.start() for match in _SENTENCE_END.finditer(text)]
    spans = [match.span() for match in _DOUBTED.finditer(text)]
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    return _Doubts(_CORRECTED.search(text) is not None, [-1, *edges, len(text)], begins, ends)


def is_doubted(text: str, begin: int, end: int) -> bool:
    """Return whether an answer takes back, or denies in the same sentence, what it says at a place."""
    doubts = _doubts(text)
    first = doubts.edges[max(bisect_left(doubts.edges, begin) - 1, 0)] + 1
    last = doubts.edges[min(bisect_left(doubts.edges, end), len(doubts.edges) - 1)]
    before = bisect_right(doubts.ends, begin) > bisect_left(doubts.begins, first)
    behind = bisect_right(doubts.ends, last) > bisect_left(doubts.begins, end)
    return doubts.corrected or before or behind


def is_signed(answer: str, name: str) -> bool:
    """Return whether a number that is a name has a sign or mark in the answer that the name lacks."""
    return (
        name[:1].isdigit()
        and re.search(rf"[-+<>]\s?{re.escape(name)}|{re.escape(name)}\s?[+%]", fold(answer)) is not None
    )


def words_of(*groups: str) -> frozenset[str]:
    """Return the words of some lists, each a string with spaces between its words."""
    return frozenset(word for group in groups for word in group.split())


def fold(text: str) -> str:
    """Return the text with full-width letters, digits and marks, and curly quotes, as their ASCII twins.

    This is the part of Unicode's NFKC that keeps the value of every number: NFKC itself makes 32 out of
    a 3 with a raised 2. The length does not change.
    """
    return text.translate(_FULL_WIDTH).translate(_MARKS)


def unwrap(text: str) -> str:
    r"""The words inside of code fences, bold, quotes, ``$…$``, ``\boxed{…}`` or a JSON object of one string.

    Only wrappings around the whole text come off, at most six of them. Of a JSON object with several keys,
    the value of ``answer``, ``option`` or ``choice`` is taken if it is the only one of them.
    """
    for _ in range(_MOST_WRAPPINGS):
        text = text.strip()
        inner = next((match[1] for each in _WRAPPINGS if (match := each.fullmatch(text))), None)
        if inner is None and text.startswith("{") and text.endswith("}") and not _CORRECTED.search(text):
            answers = _JSON_ANSWER.findall(text)
            inner = answers[0] if len(answers) == 1 else None
        if inner is None:
            break
        text = inner
    return text.strip()


def plain(text: str) -> str:
    """Lower case and single spaces, for ``_`` and ``-`` too; every Chinese character is a word of its own."""
    spaced = re.sub(f"([{HAN}])", r" \1 ", fold(text).lower().replace("_", " ").replace("-", " "))
    return " ".join(spaced.split())


def phrase(words: str) -> re.Pattern[str]:
    """A pattern that finds some `plain` words as whole words, in any case and however they are spaced."""
    pattern = ""
    for word in words.split():
        tight = pattern == "" or _is_han(word) or _is_han(pattern[-1])
        pattern += ("" if pattern == "" else rf"[\s_-]{{{0 if tight else 1},4}}") + re.escape(word)
    before = "" if _is_han(words[:1]) else rf"(?<![^\W{HAN}])"
    behind = "" if _is_han(words[-1:]) else rf"(?![^\W{HAN}])"
    return re.compile(before + pattern + behind, re.IGNORECASE)


def is_denied(text: str, begin: int, end: int) -> bool:
    """Return whether a part of a text stands right behind a denial, or right before "is wrong"."""
    before, behind = text[max(0, begin - 40) : begin], text[end : end + 40]
    return _DENIED.search(before) is not None or _REFUTED.match(behind) is not None


def _is_han(word: str) -> bool:
    return re.match(f"[{HAN}]", word) is not None
