"""Answers that name one of a few classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcr1.records import ParseFailure
from vcr1.scoring.parsing.blocks import read_answer
from vcr1.scoring.parsing.wording import is_denied, is_doubted, is_signed, phrase, plain, unwrap, words_of

CLASS_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no answer behind the reasoning
    "no_class",  # no class is named, or only by a word that may be about something else
    "ambiguous",  # two or more are, or one is denied
)
"""All the reasons for which `parse_class` fails."""

# What may stand around a single word that names a class; other words may make it about something else.
_AROUND = words_of(
    "a an the this that it its it's is was are of in to be overall quality video clip picture image footage",
    "frame frames visual visually has have with shows looks seems appears very rather quite fairly really",
    "class label answer category rated level final correct rating grade score text",
    "该 视 频 画 质 量 的 是 为 很 比 较 整 体 这 个 答 案 类 别 属 于 有 片 段",
)
_BLEND = re.compile(r"(?:\b(?:to|and|between|half|than|partly|nearly|almost)\b|[-<>+]|中|比) ?$")
_OF_ANOTHER = re.compile(
    r" ?(?:[\"':=]{0,3} ?[0-9]*\.?[0-9]+|[%+]|camera|audio|sound|music|lens|microphone|voice|, half"
    r"|label is|差)",
    re.IGNORECASE,
)
_COVER = " \0 "


def parse_class(text: str, classes: Sequence[str]) -> str | ParseFailure:
    """Return the one class that a completion's answer names (see `read_answer`), as ``classes`` spells it.

    A name of several words counts wherever it stands, in any case and with any whitespace, ``_`` or ``-``
    between its words. Longer names are looked for first, and what they cover is no shorter name: "low
    quality" does not name "quality". A name of one word, or a word that only one name has ("low" is "low
    quality" beside "high quality"), counts where only words stand around it that say nothing else: "The
    quality is low", but not "a low angle shot". The same class may be named twice. An answer that denies a
    class or weighs two names none, nor does one that says the name of something else, as in "high quality
    audio".

    Args:
        text: the completion.
        classes: the names; they differ in more than case, whitespace, ``_`` and ``-``.

    Returns:
        One of ``classes``, or a failure with one of `CLASS_FAILURES`.

    Raises:
        ValueError: no classes, an empty name or two alike; never because of the text.
    """
    names = {plain(name): name for name in classes}
    if not names or "" in names or len(names) != len(classes):
        raise ValueError(f"classes must be distinct names: {list(classes)}")
    answer = read_answer(text)
    if isinstance(answer, ParseFailure):
        return answer
    if any(is_signed(answer, name) for name in names):
        return ParseFailure("no_class")
    rest, spoken = plain(unwrap(answer)), set()
    for name in sorted(names, key=len, reverse=True):
        matches = list(phrase(name).finditer(rest))
        if (matches and "?" in rest) or any(_is_of_another(rest, match) for match in matches):
            return ParseFailure("ambiguous")
        spoken |= {name} if matches else set()
        rest = phrase(name).sub(_COVER, rest)
    said = re.findall(r"\w+(?:'\w+)?", rest)
    hinted = {name for name in names if set(said) & _own_words(name, names)}
    found = spoken | hinted
    if len(found) != 1:
        return ParseFailure("ambiguous" if found else "no_class")
    (name,) = found
    if " " not in name or not spoken:
        shared = {word for other in names for word in other.split()}
        if not set(said) <= _AROUND | shared | _own_words(name, names):
            return ParseFailure("no_class")
    return names[name]


def _is_of_another(text: str, match: re.Match[str]) -> bool:
    """Return whether a name is denied, weighed against another, or said of something else than the video."""
    if is_denied(text, match.start(), match.end()) or is_doubted(text, *match.span()):
        return True
    before, behind = text[max(0, match.start() - 30) : match.start()], text[match.end() : match.end() + 30]
    return _BLEND.search(before) is not None or _OF_ANOTHER.match(behind) is not None


def _own_words(name: str, names: Sequence[str] | dict[str, str]) -> set[str]:
    """Return the words of a name that no other name has."""
    return set(name.split()).difference(*(other.split() for other in names if other != name))
