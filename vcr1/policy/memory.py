"""Ways on where a device has no memory left: smaller parts, from then on."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from vcr1.errors import UserError, VideoError

log = logging.getLogger(__name__)

T = TypeVar("T")

ADVICE = (
    "set model.gradient_checkpointing=true, a smaller data.loader.batch_size or data.video budget, "
    "adapter=lora, or use more GPUs"
)


def halved(size: int, least: int, what: str) -> int:
    """Return half of what did not fit, after the memory of the attempt was given back.

    To be called outside of the ``except`` block: until its end, the exception keeps the attempt's tensors.

    Args:
        size: of the attempt.
        least: below which nothing can be divided.
        what: names the size in the log.

    Raises:
        UserError: there is nothing to divide.
    """
    if size <= least:
        raise UserError(f"out of memory with {what} of {size}, which cannot be divided: {ADVICE}")
    half = max(size // 2, least)
    log.warning("out of memory with %s of %d: %d from now on", what, size, half)
    release()
    return half


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a question got no answer: not the error itself, which would keep the attempt's tensors."""

    reason: str


def together_or_alone(count: int, answer: Callable[[list[int]], list[T]]) -> list[T | Unanswered]:
    """Return answers to all questions at once, or where that cannot be, to one after the other.

    What cannot be answered is so for want of memory, for logits that are no numbers, or for a prompt that
    does not fit the model. Not for weights that are spread over ranks: the others would wait for ever.

    Args:
        count: of the questions.
        answer: answers those at some places, in that order.

    Raises:
        VideoError: the video that they are about cannot be shown.
    """
    found = _attempt(answer, list(range(count)))
    if not isinstance(found, Unanswered):
        return list(found)
    if count <= 1:
        return [found]
    log.warning("%d questions cannot be answered at once: %s", count, found.reason)
    answers: list[T | Unanswered] = []
    for place in range(count):
        release()
        one = _attempt(answer, [place])
        answers.append(one if isinstance(one, Unanswered) else one[0])
    return answers


def _attempt(answer: Callable[[list[int]], list[T]], places: list[int]) -> list[T] | Unanswered:
    try:
        return answer(places)
    except VideoError:
        raise
    except (RuntimeError, UserError) as error:
        reason = str(error).split("\n")[0]
        return Unanswered(f"the model cannot answer: {reason}" if isinstance(error, RuntimeError) else reason)


def release() -> None:
    """Give memory back that is held by nothing but cycles and the allocator."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
