"""The completions that are decoded at the moment, in slots: who advances, enters and leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vcr1.policy.generation.decoding import ReadPrompts, SharedCache, step

WORTH_LEAVING = 0.75
"""Rows leave when the batch shrinks to this share of its size: moving the others costs about a step."""


class Step(Protocol):
    """A decode step, :func:`~vcr1.policy.generation.decoding.step` for instance, and the batches it takes."""

    def __call__(self, model: Any, cache: SharedCache, ids: Tensor, positions: Tensor) -> Tensor:
        """Return logits ``[P·S, V]`` after one more token in every slot."""

    def size(self, wanted: int) -> int:
        """Return the number of prompts, or of slots, that a batch has which needs so many."""


class PlainStep:
    """The decode step as it is, for batches of any size."""

    __call__ = staticmethod(step)

    def size(self, wanted: int) -> int:
        """Return the number of prompts, or of slots, that a batch has which needs so many."""
        return wanted


@dataclass(slots=True)
class Slots:
    """The completions that are decoded at the moment: S slots for each of P prompts.

    Completions are numbered ``prompt · G + generation``; the number behind the last stands for none.

    Attributes:
        held: ``[P, S]`` the completion in each slot.
        start: ``[P]`` the position of a completion's first token.
        columns: as in ``cache``, but without a wait for the device.
        cache: keys and values.
        logits: ``[P·S, V]`` that the next token is drawn from.
        drawn: ``[P, S]`` the token that was drawn last in each.
    """

    held: Tensor
    start: Tensor
    columns: list[int]
    cache: SharedCache
    logits: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, prompts: ReadPrompts, parts: Sequence[range], width: int, longest: int, none: int) -> Slots:
        """Return the batch that begins behind prompts.

        Args:
            prompts: P prompts that have been read.
            parts: completions of each.
            width: S.
            longest: tokens of the longest prompt that may come.
            none: the number that stands for no completion.
        """
        device = prompts.logits.device
        held = torch.tensor([filled(part, width, none) for part in parts], device=device)
        logits = prompts.logits.repeat_interleave(width, 0)
        cache = prompts.cache(width, longest)
        return cls(held, prompts.next_position, [0] * len(parts), cache, logits, torch.zeros_like(held))

    def advance(self, model: Any, step: Step, limit: int) -> None:
        """Compute the logits behind the tokens that were drawn.

        Args:
            model: the Hugging Face model.
            step: computes them.
            limit: C. What has come so far is decoded no further, whether it leaves or not.
        """
        self.cache.reserve(max(self.columns) + 1)
        positions = (self.start + self.cache.columns).repeat_interleave(self.held.shape[1])
        self.logits = step(model, self.cache, self.drawn.flatten(), positions)
        self.cache.columns = (self.cache.columns + 1).clamp_max(limit - 1)
        self.columns = [min(column + 1, limit - 1) for column in self.columns]

    def enter(self, place: int, prompts: ReadPrompts, row: int, part: Sequence[int], none: int) -> None:
        """Put completions of a prompt in the place of another's that have ended."""
        width = self.held.shape[1]
        self.held[place] = torch.tensor(filled(part, width, none), device=self.held.device)
        self.start[place] = prompts.next_position[row]
        self.columns[place] = 0
        self.cache.enter(place, prompts.alone(row))
        self.logits[place * width : (place + 1) * width] = prompts.logits[row]

    def shrink(self, alive: list[list[int]], none: int, size: Callable[[int], int]) -> None:
        """Leave prompts and slots out that hold no completion any more, if that pays.

        Args:
            alive: the slots of each prompt that hold one; at least one does.
            none: the number that stands for no completion.
            size: see :meth:`Step.size`.
        """
        prompts, slots = self.held.shape
        width = min(size(max(map(len, alive))), slots)
        places = [place for place, members in enumerate(alive) if members]
        count = min(size(len(places)), prompts)
        if count * width > WORTH_LEAVING * prompts * slots:
            return
        # What fills a batch up to its size is decoded for no completion.
        places += [place for place in range(prompts) if not alive[place]][: count - len(places)]
        kept = [[*alive[place], *[0] * width][:width] for place in places]
        live = [[slot < len(alive[place]) for slot in range(width)] for place in places]
        device = self.held.device
        index, chosen = torch.tensor(places, device=device), torch.tensor(kept, device=device)
        self.cache.keep(index, chosen)
        self.held = self.held[index[:, None], chosen].masked_fill(~torch.tensor(live, device=device), none)
        self.drawn = self.drawn[index[:, None], chosen]
        self.start = self.start[index]
        self.columns = [self.columns[place] for place in places]


def filled(part: Sequence[int], width: int, none: int) -> list[int]:
    """Return the completions of a prompt, and none in the other slots."""
    return [*part, *[none] * (width - len(part))]


def parts_of_prompts(num_prompts: int, num_generations: int, rows: int | None) -> tuple[deque[range], int]:
    """Return what is decoded side by side: completions of one prompt each, and how many such parts at once.

    Args:
        num_prompts: P.
        num_generations: G.
        rows: bound of completions decoded at once; None for no bound.
    """
    total = num_prompts * num_generations
    rows = min(rows or total, total)
    width = min(num_generations, rows)
    parts = deque(
        range(first + start, first + min(start + width, num_generations))
        for first in range(0, total, num_generations)
        for start in range(0, num_generations, width)
    )
    return parts, min(rows // width, len(parts))
