"""Answers chosen from given options: a letter, or an option's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from string import ascii_uppercase

from vcr1.records import ParseFailure
from vcr1.scoring.parsing.blocks import read_answer
from vcr1.scoring.parsing.wording import (
    HAN,
    fold,
    is_denied,
    is_doubted,
    is_signed,
    phrase,
    plain,
    unwrap,
    words_of,
)

LETTER_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no answer behind the reasoning
    "no_letter",  # nothing that stands for one option, or a denied one
    "ambiguous",  # two different ones, or a letter with another option's words
    "not_an_option",  # a letter beyond the last option
)
"""All the reasons for which `parse_letter` and `parse_option` fail."""

# Quantifiers are possessive or bounded, so that every scan is linear.
# Not a letter of its own: part of a word, of "I'm", of "X-ray", of "U.S.".
_ALONE = r"(?!\w|['\u2019\-.]\w|[+#])"
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
        r"\b(?i:answer|option|choice|答案|选项|选择|选)[^\w\n]{0,8}+"
        r"(?:(?i:is|would|be|the|correct|option|choice|letter|是|为|选项)\b[^\w\n]{0,8}+){0,6}+" + _LETTER
    ),
)
_BARE = re.compile(r"(?<!\w)(?<!\w['\u2019.-])(?<![0-9][ ])" + _LETTER)
# The last word before a bare letter, where it is none that names an answer: "Team B" is no B.
_NOUN = re.compile(
    r"\b(?!(?:is|be|was|think|thinks|choose|chooses|chose|select|selects|pick|picks|guess|say|says|believe|letter"
    r"|as|so|to|for|with|or|and|either|both|s|m)\b)[a-z]++[ \t]{1,4}$",
    re.IGNORECASE,
)
# "C or D", "C/D", "(C), (D)". The second letter is looked at only, so that it can be the next one's first.
_EITHER = re.compile(
    r"(?<!\w)([A-Z])\b[^\w\n]{0,4}(?:\b(?:or|and)\b|[/,&])"
    r"(?=[^\w\n]{0,4}(?:(?:or|and)\b[^\w\n]{1,4})?" + _LETTER + ")"
)
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|the|my|final|correct|right|best|most|likely|answer|option|choice|would|be|is|it|this"
    r"|that|s|答|案|选|项|择|正|确|的|是|为|应|该)\b[\s:,.'*-]*+)*+"
)
_LETTER_AND_WORDS = re.compile(r"[(\[]?([a-z])[)\].:,]*+ (?:. )?(.++)")
_BESIDE_HAN = re.compile(f"(?<=[{HAN}])(?=[A-Za-z0-9(])|(?<=[A-Za-z0-9)])(?=[{HAN}])")
_HAN_JOINS = re.compile(r"[和或与及到至]")
_ARTICLE = re.compile(r"^(?:a|an|the) (?=.)")
# A letter behind one of these names a thing, and one before a number is rated.
_LABELLED = re.compile(
    r"\b(?:camera|scene|exhibit|figure|panel|player|person|people|marked|labell?ed|grade|mrs?|team|group|plan"
    r"|clip|part|step|segment|shot|zone|area|room|gate|door|line|point|stage|phase|block|section|vitamin)"
    r"[.:]?[ ]{0,2}[(\[*\"']{0,3}$",
    re.IGNORECASE,
)
_RATED = re.compile(r"[)\]*\"']{0,3}[ ]{0,2}[:=(][ ]{0,2}[0-9]*\.?[0-9]")
# Around a single word that names an option; another word may make it about something else.
_AROUND = words_of(
    "the a an answer is it its he she they this there man woman boy girl person people object ball shape",
    "color colour direction correct right choice option final best so i think believe choose pick select",
    "would say says my are was were be being does do did moves move moving moved goes going to towards",
    "toward in of video shown shows seen see likely most probably definitely clearly because words b c d e f",
    "答 案 是 选 项 的 他 她 它 在 物 体 颜 色 为 正 确",
)
_BEFORE_NAME = words_of(
    "a an the is it's its was are be as and say words answer option of with to : on in see sees"
)
_PRONOUNS = words_of("he she they who man woman boy girl person people")
_MOST_LETTERS = 64
_MOST_NAMES = 16
_COVER = "words"
_ENDS = " .,;:!?\"'"


def parse_letter(text: str, options: int) -> str | ParseFailure:
    """Return the option letter, in upper case, of a completion's answer (see `read_answer`).

    Two tiers; the second is read only where the first finds nothing:

    1. *Marked* letters, in either case: in brackets (``(C)``, ``[c]``) or bold (``**C**``); at the start
       of a line before ``.``, ``)`` or ``:``, or alone on it; after "answer", "option", "choice" or their
       Chinese words (``the answer is C``, ``Answer: C``, ``答案是C``).
    2. *Bare* capitals that stand alone (``C performing``, ``it is C``), but not behind a noun (``Team C``).

    In running text, "A" before another word is the article, "I" before a word the pronoun and a small
    letter a word, none of them an option: ``A man plays (C)`` is C, and ``A man plays`` has no letter.
    "A" still counts before "or", "and", "is", "was", "because", "since" and "as".

    The tier must name exactly one letter, and no other may be joined to that one as an alternative:
    ``A or B`` and ``(A), B`` are ambiguous, ``(D) both A and B`` is D. A letter right behind "not" or
    another denial is no answer.

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
    answer = read_answer(text)
    return answer if isinstance(answer, ParseFailure) else _letter(unwrap(answer), options)


def parse_option(text: str, options: Sequence[str]) -> str | ParseFailure:
    """Return the option that a completion's answer names (see `read_answer`), by its letter or its own words.

    In this order:

    1. one letter and nothing else;
    2. the words of exactly one option and nothing else, behind "the answer is" or not;
    3. a letter and then an option's words: both have to mean the same option;
    4. a letter as `parse_letter` finds it, where letters inside of an option's words do not count;
    5. the words of exactly one option in a sentence, not denied, and no letter.

    Nothing is read where the answer takes something back ("wait", "→"), or where a denial or a doubt stands
    in the same sentence. One word names an option only among words that say nothing else.

    Args:
        text: the completion.
        options: the texts of the options, 1 to 26.

    Returns:
        A letter, or a failure with one of `LETTER_FAILURES`.
    """
    answer = read_answer(text)
    if isinstance(answer, ParseFailure):
        return answer
    answer = unwrap(answer)
    said = [plain(answer).strip(_ENDS)]
    said.append(_LEAD.sub("", said[0], count=1).strip(_ENDS))
    names = [plain(option).strip(_ENDS) for option in options]
    letters = ascii_uppercase[: len(options)]
    if said[0].upper() in letters and len(said[0]) == 1:
        return said[0].upper()
    for words in said:
        if names.count(words) == 1 and not is_signed(answer, words):
            return letters[names.index(words)]
    pair = _LETTER_AND_WORDS.fullmatch(said[1]) or _LETTER_AND_WORDS.fullmatch(said[0])
    begun = _begun(pair[2], names) if pair else None
    if pair and begun is not None and pair[1].upper() in letters:
        same = names[letters.index(pair[1].upper())] == names[begun]
        if is_doubted(pair[2][len(names[begun]) :], 0, 0):
            return ParseFailure("no_letter")
        return pair[1].upper() if same else ParseFailure("ambiguous")
    rest, named, others = _mask(answer, names)
    letter = _letter(rest, len(options))
    if not isinstance(letter, ParseFailure):
        return letter if not named or letter in named else ParseFailure("ambiguous")
    if letter.reason != "no_letter" or not named:
        return letter
    return named.pop() if len(named) == 1 and not others else ParseFailure("ambiguous")


def _letter(answer: str, options: int) -> str | ParseFailure:
    """Return the one letter that an answer's words name."""
    text = _HAN_JOINS.sub(" and ", _BESIDE_HAN.sub(" ", fold(answer)))
    found = _letters(text, (match for pattern in _MARKED for match in pattern.finditer(text)))
    if not found:
        found = _letters(text, _bare(text))
    if not found:
        return ParseFailure("no_letter")
    for either in _EITHER.finditer(text):
        pair = {either[1], either[either.lastindex or 1].upper()}
        found |= pair if found & pair else set()
    if len(found) > 1:
        return ParseFailure("ambiguous")
    (letter,) = found
    return letter if letter in ascii_uppercase[:options] else ParseFailure("not_an_option")


def _bare(text: str) -> Iterable[re.Match[str]]:
    """Yield the capitals that stand alone, but not behind a noun."""
    for match in _BARE.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        if match[0].isupper() and (_NOUN.search(before) is None or len(before.strip()) == 1):
            yield match


def _letters(text: str, matches: Iterable[re.Match[str]]) -> set[str]:
    """Return the letters in the groups of the first matches, in upper case; none where one is denied."""
    letters = set()
    for match in islice(matches, _MOST_LETTERS):
        if match.lastindex is not None:
            begin, end = match.span(match.lastindex)
            if _LABELLED.search(text, max(0, begin - 40), begin) or _RATED.match(text, end):
                return set()
            if is_denied(text, match.start(), match.end()) or is_doubted(text, begin, end):
                return set()
            letters.add(match[match.lastindex].upper())
    return letters


def _begun(words: str, names: Sequence[str]) -> int | None:
    """Return the place of the longest name that some words begin with, if any."""
    fitting = [name for name in names if re.match(rf"{re.escape(name)}(?!\w)", words) and name]
    return names.index(max(fitting, key=len)) if fitting else None


def _mask(answer: str, names: Sequence[str]) -> tuple[str, set[str], set[str]]:
    """An answer with the words of options covered, the letters of those that it names, and of others it has.

    One word in the middle of a sentence names no option, as "2" or "no" may belong to the sentence, nor do
    denied words. Longer options are looked for first, and what they cover is no shorter one.
    """
    rest = fold(answer)
    named: set[str] = set()
    others: set[str] = set()
    for place in sorted(range(len(names)), key=lambda place: -len(names[place])):
        name = _ARTICLE.sub("", names[place])
        if len(name) < 2 or names.count(names[place]) > 1:
            continue
        pattern = phrase(name)
        for count, match in enumerate(pattern.finditer(rest)):
            if count == _MOST_NAMES:  # said over and over: no answer
                others.add(ascii_uppercase[place])
                named.discard(ascii_uppercase[place])
                break
            inside = _is_of_another(rest, match, name, name != names[place])
            denied = is_denied(rest, match.start(), match.end()) or is_doubted(rest, *match.span())
            (others if inside or denied else named).add(ascii_uppercase[place])
        rest = pattern.sub(_COVER, rest)
    return rest, named, others - named


def _is_of_another(text: str, match: re.Match[str], name: str, has_article: bool) -> bool:
    """Return whether the words around an option's name may make it about something else.

    A single word counts where all others are known, but not as a verb behind a pronoun ("He left"). A longer
    name counts in any sentence, but not behind an adjective ("a dark red ball") or a bound ("before 5 s").
    """
    if re.search(r"[0-9][:.]?$|[-<>+]$", text[max(0, match.start() - 3) : match.start()]):
        return True
    if text[max(0, match.start() - 1) : match.start()] in tuple("\u6df1\u6d45\u6de1\u6697\u4eae\u5929\u7c89"):
        return True
    before = plain(text[max(0, match.start() - 60) : match.start()]).split()
    last = before[-1].strip(_ENDS) if before else ""
    if " " not in name and not re.match(f"[{HAN}]", name):
        others = re.findall(r"\w+(?:'\w+)?", plain(text[: match.start()] + " " + text[match.end() :]))
        of_nothing = name == "no" and re.match(r" \w", text[match.end() :]) is not None  # "no answer"
        return of_nothing or last in _PRONOUNS or not set(others) <= _AROUND
    if has_article and last and last not in _BEFORE_NAME and last[-1:].isalpha():
        return True
    return last in ("before", "after", "until", "than", "over", "under")
