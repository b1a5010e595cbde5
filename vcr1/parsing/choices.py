"""Answers chosen from a given set: the letter of an option, or the name of a class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from vcr1.parsing.blocks import answer_block
from vcr1.records import ParseFailure

LETTER_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no closed <answer> block
    "no_letter",  # no letter that stands for an option
    "ambiguous",  # two different ones
    "not_an_option",  # one, beyond the last option
)
"""All the reasons for which `parse_letter` fails."""

CLASS_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no closed <answer> block
    "no_class",  # no class is named
    "ambiguous",  # two or more are
)
"""All the reasons for which `parse_class` fails."""

# Quantifiers are possessive or bounded, so that every scan is linear.
# Not a letter of its own: part of a word, of "I'm", of "X-ray", of "U.S.".
_ALONE = r"(?!\w|['\u2019\-.]\w)"
# What follows "A" or a small letter and makes it a word of the sentence: a word other than these.
_READS_ON = r"(?![ \t]++(?!(?:or|and|is|was|because|since|as)\b)[^\W\d_])"
_LETTER = rf"(?:([B-HJ-Z]){_ALONE}|([Aa-z]){_ALONE}{_READS_ON}|(I){_ALONE}(?![ \t]++[^\W\d_]))"

_MARKED = (
    # (C) [C] {C}, and **C** or **C.**
    re.compile(r"(?:(?<!\w)[(\[]|\{)[ \t]{0,4}([A-Za-z])[.:]?[ \t]{0,4}[)\]}]"),
    re.compile(r"(?<!\w)\*\*[ \t]{0,4}([A-Za-z])[.:)]?[ \t]{0,4}\*\*"),
    # C. C) C: at the start of a line, and a line that is C alone
    re.compile(r"^[ \t*_`\"'>#-]*+([A-Za-z])(?:[):]|\.(?!\w)|[ \t*_`\"']*+\r?$)", re.MULTILINE),
    # the answer is C, Answer: C, option C
    re.compile(
        r"\b(?i:answer|option|choice)\b[^\w\n]{0,8}+"
        r"(?:(?i:is|would|be|the|correct|option|choice|letter)\b[^\w\n]{1,8}+){0,6}+" + _LETTER
    ),
)
_BARE = re.compile(r"(?<!\w)(?<!\w['\u2019.-])" + _LETTER)
# "C or D", "C/D", "(C), (D)". The second letter is looked at only, so that it can be the next one's first.
_EITHER = re.compile(
    r"(?<!\w)([A-Z])\b[^\w\n]{0,4}(?:\b(?:or|and)\b|[/,&])"
    r"(?=[^\w\n]{0,4}(?:(?:or|and)\b[^\w\n]{1,4})?" + _LETTER + ")"
)


def parse_letter(text: str, options: int) -> str | ParseFailure:
    """The option letter, in upper case, of the text's last answer block.

    Two tiers; the second is read only where the first finds nothing:

    1. *Marked* letters, in either case: in brackets (``(C)``, ``[c]``) or bold (``**C**``); at the start
       of a line before ``.``, ``)`` or ``:``, or alone on it; after "answer", "option" or "choice"
       (``the answer is C``, ``Answer: C``).
    2. *Bare* capitals that stand alone anywhere (``C performing``, ``it is C``).

    In running text, "A" before another word is the article, "I" before a word the pronoun and a small
    letter a word, none of them an option: ``A man plays (C)`` is C, and ``A man plays`` has no letter.
    "A" still counts before "or", "and", "is", "was", "because", "since" and "as".

    The tier must name exactly one letter, and no other may be joined to that one as an alternative:
    ``A or B`` and ``(A), B`` are ambiguous, ``(D) both A and B`` is D. A negation is not understood.

    Args:
        text: the completion.
        options: number of options, 1 to 26.

    Returns:
        A letter, or a failure with one of `LETTER_FAILURES`.

    Raises:
        ValueError: a number of options without letters; never because of the text.
    """
    if not 1 <= options <= len(ascii_uppercase):
        raise ValueError(f"options must be 1 to 26: {options}")
    answer = answer_block(text)
    if isinstance(answer, ParseFailure):
        return answer
    found = _letters(match for pattern in _MARKED for match in pattern.finditer(answer))
    if not found:
        found = _letters(match for match in _BARE.finditer(answer) if match[0].isupper())
    if not found:
        return ParseFailure("no_letter")
    for either in _EITHER.finditer(answer):
        pair = {either[1], either[either.lastindex or 1].upper()}
        found |= pair if found & pair else set()
    if len(found) > 1:
        return ParseFailure("ambiguous")
    (letter,) = found
    return letter if letter in ascii_uppercase[:options] else ParseFailure("not_an_option")


def _letters(matches: Iterable[re.Match[str]]) -> set[str]:
    """The letters that matches hold in one of their groups, in upper case."""
    return {match[match.lastindex].upper() for match in matches if match.lastindex is not None}


def parse_option(text: str, options: Sequence[str]) -> str | ParseFailure:
    """The option letter of the text's last answer block; where that is unclear, by the option's own words.

    As `parse_letter`, and besides: a letter that opens the answer and is followed by its option's own text
    counts whatever else stands there, and so does an answer that is one option's text and no other's.

    Args:
        text: the completion.
        options: the texts of the options, 1 to 26.

    Returns:
        A letter, or a failure with one of `LETTER_FAILURES`.
    """
    letter = parse_letter(text, len(options))
    answer = answer_block(text)
    if not isinstance(letter, ParseFailure) or isinstance(answer, ParseFailure):
        return letter
    said = _plain(answer).strip(" .")
    plain = [_plain(option).strip(" .") for option in options]
    for letter_of, option in zip(ascii_uppercase.lower(), plain, strict=False):
        written = [f"{letter_of}{mark} {option}" for mark in (".", ")", ":")] + [f"({letter_of}) {option}"]
        if option and said in written:
            return letter_of.upper()
    if letter.reason == "no_letter" and plain.count(said) == 1:
        return ascii_uppercase[plain.index(said)]
    return letter


def parse_class(text: str, classes: Sequence[str]) -> str | ParseFailure:
    """The one class that the text's last answer block names, as ``classes`` spells it.

    A name counts wherever it stands as whole words, in any case and with any whitespace, ``_`` or ``-``
    between its words. Longer names are looked for first, and what they cover is no shorter name: "low
    quality" does not name "quality". Where no name stands, a word will do that only one of them has: "low" is
    "low quality" beside "high quality". The same class may be named twice. A negation is not understood.

    Args:
        text: the completion.
        classes: the names; they differ in more than case, whitespace, ``_`` and ``-``.

    Returns:
        One of ``classes``, or a failure with one of `CLASS_FAILURES`.

    Raises:
        ValueError: no classes, an empty name or two alike; never because of the text.
    """
    names = {_plain(name): name for name in classes}
    if not names or "" in names or len(names) != len(classes):
        raise ValueError(f"classes must be distinct names: {list(classes)}")
    answer = answer_block(text)
    if isinstance(answer, ParseFailure):
        return answer
    rest, named = _plain(answer), []
    for plain in sorted(names, key=len, reverse=True):
        rest, hits = re.subn(rf"(?<!\w){re.escape(plain)}(?!\w)", "\0", rest)
        if hits:
            named.append(names[plain])
    if not named:
        words = {plain: set(plain.split()) for plain in names}
        said = set(re.findall(r"\w+", rest))
        for plain, name in names.items():
            others = set().union(*(words[other] for other in names if other != plain))
            if said & (words[plain] - others):
                named.append(name)
    if not named:
        return ParseFailure("no_class")
    return named[0] if len(named) == 1 else ParseFailure("ambiguous")


def _plain(text: str) -> str:
    """Lower case, with single spaces between the words, for ``_`` and ``-`` too, and none around them."""
    return " ".join(text.lower().replace("_", " ").replace("-", " ").split())
