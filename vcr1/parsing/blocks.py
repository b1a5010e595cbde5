"""The blocks that an answer is made of, and the exact forms that the format reward asks for."""

from __future__ import annotations

import re
from itertools import islice

from vcr1.records import ParseFailure

MAX_TEXT = 100_000
"""Longest text that is read, in characters."""

CAPTION_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no closed <answer> block
    "empty",  # nothing in it
)
"""All the reasons for which `parse_caption` fails."""

# ASCII only: in Unicode mode, ignoring case would let the long s of "an\u017fwer" pass.
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
_GLUE_TAG = re.compile(r"<(/?)glue>", re.IGNORECASE | re.ASCII)
_ANY_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE | re.ASCII)
_ANY_TAG_OR_GLUE = re.compile(r"</?(?:think|answer|glue)>", re.IGNORECASE | re.ASCII)


def answer_block(text: str) -> str | ParseFailure:
    """Content of the last closed ``<answer>…</answer>`` block, stripped; tags in any case.

    The content holds no answer tag: a block starts at the last opening tag before its closing tag.
    An unclosed tag after a whole block does not hide that block.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_answer``.
    """
    return _last_block(text, _ANSWER_TAG, "no_answer")


def parse_caption(text: str) -> str | ParseFailure:
    """The words of the text's last answer block, or a failure with one of `CAPTION_FAILURES`."""
    answer = answer_block(text)
    if isinstance(answer, ParseFailure):
        return answer
    return answer or ParseFailure("empty")


def glue_block(text: str) -> str | ParseFailure:
    """Content of the last closed ``<glue>…</glue>`` block, found as `answer_block` finds its own.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_glue``.
    """
    return _last_block(text, _GLUE_TAG, "no_glue")


def _last_block(text: str, tags: re.Pattern[str], missing: str) -> str | ParseFailure:
    """Content of the last closed block of a tag; the pattern's group 1 is the slash of closing tags."""
    if len(text) > MAX_TEXT:
        return ParseFailure("too_long")
    block, start = None, None
    for tag in tags.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            block, start = (start, tag.start()), None
    return ParseFailure(missing) if block is None else text[block[0] : block[1]].strip()


def without_tags(text: str) -> str:
    """The text without tags of blocks, to be put into one."""
    return _ANY_TAG_OR_GLUE.sub(
        " ", text
    )  # no empty string, which would join what stood around into a new tag


def has_answer_format(text: str, think: bool) -> bool:
    """Whether the whole text is ``<think>…</think><answer>…</answer>``; without ``think``, the answer alone.

    Whitespace may stand around the text and between the two blocks. Each tag stands exactly once, in
    lower case as the prompts ask for it, and a stray tag in any case spoils the form. This is stricter
    than the released regular expression, whose lazy ``.*?`` lets a second answer block, or tags in the
    wrong order, hide inside the match: there the text could be rewarded for its form while a parser is
    free to pick either answer. The content is not judged; it may be empty.
    """
    return _is_sequence(text, ["think"] * think + ["answer"], _ANY_TAG)


def has_glue_format(text: str, think: bool) -> bool:
    """Whether the whole text is ``<think>…</think><answer>…</answer><glue>…</glue>``.

    Without ``think``, the last two alone; as strict as `has_answer_format`, and in this order only.
    """
    return _is_sequence(text, ["think"] * think + ["answer", "glue"], _ANY_TAG_OR_GLUE)


def _is_sequence(text: str, names: list[str], tags: re.Pattern[str]) -> bool:
    """Whether a text is the named blocks one after another, and ``tags`` finds no tag besides theirs."""
    if len(text) > MAX_TEXT:
        return False
    body = text.strip()
    wanted = [tag for name in names for tag in (f"<{name}>", f"</{name}>")]
    found = list(islice(tags.finditer(body), len(wanted) + 1))
    if [tag[0] for tag in found] != wanted or found[0].start() != 0 or found[-1].end() != len(body):
        return False
    gaps = zip(found[1::2], found[2::2], strict=False)  # the last closing tag has no block behind it
    return not any(body[closing.end() : opening.start()].strip() for closing, opening in gaps)
