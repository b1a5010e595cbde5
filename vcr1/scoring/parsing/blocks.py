"""The blocks that an answer is made of, and the words of a reply that lacks them."""

from __future__ import annotations

import re

from vcr1.records import ParseFailure
from vcr1.scoring.parsing.wording import unwrap

MAX_TEXT = 100_000
"""Longest text that is read, in characters."""

MAX_UNTAGGED = 200
"""Longest reply without tags in which a value is looked for, in characters; a longer one is reasoning."""

CAPTION_FAILURES: tuple[str, ...] = (
    "too_long",  # the text is over MAX_TEXT
    "no_answer",  # no answer behind the reasoning
    "empty",  # no word in it
)
"""All the reasons for which `parse_caption` fails."""

# ASCII only: in Unicode mode, ignoring case would let the long s of "an\u017fwer" pass.
_FLAGS = re.IGNORECASE | re.ASCII
_ANSWER_TAG = re.compile(r"<[ ]?(/?)[ ]?answer[ ]?>", _FLAGS)
_GLUE_TAG = re.compile(r"<[ ]?(/?)[ ]?glue[ ]?>", _FLAGS)
_THINK_TAG = re.compile(r"<[ ]?(/?)[ ]?think[ ]?>", _FLAGS)
_ANY_TAG = re.compile(r"<[ ]?/?[ ]?(?:think|answer|glue)[ ]?>", _FLAGS)
_HALF_TAG = re.compile(r"</?(?:answer|glue|think)\b", _FLAGS)
_END_OF_TURN = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|eos)\|>|</s>|<end_of_turn>")
_CUT_NUMBER = re.compile(r"(?<![0-9.])[0-9]{1,32}\.?$")
_OPENING, _CLOSING = "([{", ")]}"


def answer_block(text: str) -> str | ParseFailure:
    """Return content of the last closed ``<answer>…</answer>`` block, stripped; tags in any case.

    The content holds no answer tag: a block starts at the last opening tag before its closing tag.
    An unclosed tag after a whole block does not hide that block.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_answer``.
    """
    return _closed_block(text, _ANSWER_TAG, "no_answer")


def glue_block(text: str) -> str | ParseFailure:
    """Return content of the last closed ``<glue>…</glue>`` block, found as `answer_block` finds its own.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_glue``.
    """
    return _closed_block(text, _GLUE_TAG, "no_glue")


def read_answer(text: str, longest: int = MAX_UNTAGGED) -> str | ParseFailure:
    """Return the words that a completion gives as its answer, with or without its tags.

    What a closed ``<think>`` block holds is no answer. Behind it, the last closed answer block counts; where
    there is none, what follows an opening tag, unless it looks cut off; and where there is no tag at all, the
    whole reply of up to ``longest`` characters, without glue. Reasoning that never ends holds an answer
    only in a closed block that ends the text.

    Returns:
        The words, which may be none, or a failure: ``too_long``, ``no_answer``.
    """
    return _read_block(text, _ANSWER_TAG, "no_answer", longest)


def read_glue(text: str) -> str | ParseFailure:
    """The content of a completion's glue block, found as `read_answer` finds its own, never without a tag.

    Returns:
        The content, which may be empty, or a failure: ``too_long``, ``no_glue``.
    """
    return _read_block(text, _GLUE_TAG, "no_glue", longest=-1)


def parse_caption(text: str) -> str | ParseFailure:
    """Return the words of a completion's answer without their wrapping, or a failure of `CAPTION_FAILURES`.

    See `read_answer` and `unwrap`; a reply without tags may have any length.
    """
    answer = read_answer(text, longest=MAX_TEXT)
    if isinstance(answer, ParseFailure):
        return answer
    words = unwrap(answer)
    return words if re.search(r"\w", words) else ParseFailure("empty")


def without_tags(text: str) -> str:
    """Return the text without tags of blocks, to be put into one."""
    return _ANY_TAG.sub(" ", text)  # no empty string, which would join what stood around into a new tag


def _closed_block(text: str, tags: re.Pattern[str], missing: str) -> str | ParseFailure:
    """Content of the last closed block of a tag; the pattern's group 1 is the slash of closing tags."""
    if len(text) > MAX_TEXT:
        return ParseFailure("too_long")
    block = _last_block(text, tags)
    return ParseFailure(missing) if block is None else text[slice(*block)].strip()


def _last_block(text: str, tags: re.Pattern[str]) -> tuple[int, int] | None:
    """Return where the content of the last closed block begins and ends."""
    block, start = None, None
    for tag in tags.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            block, start = (start, tag.start()), None
    return block


def _read_block(text: str, tags: re.Pattern[str], missing: str, longest: int) -> str | ParseFailure:
    """Content of the last block of a tag, closed or not; else the reply of up to ``longest`` characters."""
    if len(text) > MAX_TEXT:
        return ParseFailure("too_long")
    reply, thinks = _behind_thought(_END_OF_TURN.sub("", text))
    block = _last_block(reply, tags)
    if block is not None:
        rest = _without_glue(reply[block[1] :])
        return ParseFailure(missing) if thinks and rest else reply[slice(*block)].strip()
    opening = next((tag.end() for tag in tags.finditer(reply) if not tag[1]), None)
    if opening is not None:
        words = next((part.strip() for part in reversed(_ANY_TAG.split(reply[opening:])) if part.strip()), "")
        return ParseFailure(missing) if thinks or not words or _is_cut(words) else words
    words = _without_glue(reply)
    broken = thinks or not words or _HALF_TAG.search(words) is not None
    return ParseFailure(missing) if broken or len(words) > longest else words


def _behind_thought(text: str) -> tuple[str, bool]:
    """Return what follows the last closing think tag, and whether an open one stands in it."""
    thoughts = list(_THINK_TAG.finditer(text))
    end = max((tag.end() for tag in thoughts if tag[1]), default=0)
    return text[end:], any(not tag[1] and tag.start() >= end for tag in thoughts)


def _without_glue(text: str) -> str:
    """Return the text without its last glue block and without tags."""
    block = _last_block(text, _GLUE_TAG)
    if block is not None:
        text = text[: block[0]] + text[block[1] :]
    return without_tags(text).strip()


def _is_cut(words: str) -> bool:
    """Return whether an unclosed block may have lost its end: an open bracket, or a number that may go on."""
    opened = sum(map(words.count, _OPENING)) - sum(map(words.count, _CLOSING))
    return opened > 0 or bool(_CUT_NUMBER.search(words[-40:]))
