"""The exact forms that the format reward asks for, which are fewer than the forms that are read."""

from __future__ import annotations

import re
from itertools import islice

from vcr1.scoring.parsing.blocks import MAX_TEXT, answer_block, glue_block

# ASCII only: in Unicode mode, ignoring case would let the long s of "an\u017fwer" pass.
_ANY_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE | re.ASCII)
_ANY_TAG_OR_GLUE = re.compile(r"</?(?:think|answer|glue)>", re.IGNORECASE | re.ASCII)

# Possessive, so that the scan is linear.
_NUMBER = r"(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)"
_COMMA = r"\s*+,\s*+"
_SPAN = rf"\(\s*+{_NUMBER}{_COMMA}{_NUMBER}\s*+\)"
_SPANS = re.compile(rf"\[\s*+{_SPAN}(?:{_COMMA}{_SPAN})*+\s*+\]")
_BOX = rf"\[\s*+-?{_NUMBER}(?:{_COMMA}-?{_NUMBER}){{3}}\s*+\]"
_BOXES = re.compile(rf"\[\s*+{_BOX}(?:{_COMMA}{_BOX})*+\s*+\]")


def has_answer_format(text: str, think: bool) -> bool:
    """Return whether the text is ``<think>…</think><answer>…</answer>``, or the answer alone.

    Whitespace may stand around the text and between the two blocks. Each tag stands exactly once, in
    lower case as the prompts ask for it, and a stray tag in any case spoils the form. This is stricter
    than the released regular expression, whose lazy ``.*?`` lets a second answer block, or tags in the
    wrong order, hide inside the match: there the text could be rewarded for its form while a parser is
    free to pick either answer. The content is not judged; it may be empty.
    """
    return _is_sequence(text, ["think"] * think + ["answer"], _ANY_TAG)


def has_glue_format(text: str, think: bool) -> bool:
    """Return whether the text is ``<think>…</think><answer>…</answer><glue>[(1.0, 2.5)]</glue>``.

    Without ``think``, the last two alone; as strict as `has_answer_format`, and in this order only. The glue
    is a list of pairs of numbers in round brackets, with any whitespace and any number of decimals. What the
    answer holds is not judged.
    """
    if not _is_sequence(text, ["think"] * think + ["answer", "glue"], _ANY_TAG_OR_GLUE):
        return False
    glue = glue_block(text)
    return isinstance(glue, str) and _SPANS.fullmatch(glue) is not None


def has_boxes_format(text: str, think: bool) -> bool:
    """`has_answer_format`, and the answer is a list of lists of four numbers, ``[[0.1, 0.2, 0.4, 0.6], …]``.

    How many boxes there are, and what their numbers mean, is not judged.
    """
    if not has_answer_format(text, think):
        return False
    answer = answer_block(text)
    return isinstance(answer, str) and _BOXES.fullmatch(answer) is not None


def _is_sequence(text: str, names: list[str], tags: re.Pattern[str]) -> bool:
    """Return whether a text is the named blocks in order, and ``tags`` finds no other tag."""
    if len(text) > MAX_TEXT:
        return False
    body = text.strip()
    wanted = [tag for name in names for tag in (f"<{name}>", f"</{name}>")]
    found = list(islice(tags.finditer(body), len(wanted) + 1))
    if [tag[0] for tag in found] != wanted or found[0].start() != 0 or found[-1].end() != len(body):
        return False
    gaps = zip(found[1::2], found[2::2], strict=False)  # the last closing tag has no block behind it
    return not any(body[closing.end() : opening.start()].strip() for closing, opening in gaps)
