"""Passes over groups: the completions of one forward, so that its memory stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pass:
    """The prompts of one forward, and the completions that it computes of each.

    Attributes:
        members: prompt -> its completions in this pass, both by number, in order.
    """

    members: dict[int, list[int]] = field(default_factory=dict)


def plan_passes(prompts: list[int], completions: list[list[int]], max_tokens: int | None) -> list[Pass]:
    """Fill passes one after the other; a prompt whose completions fall into several is computed in each.

    The gradient is that of one pass: a completion's part of it does not depend on the others.

    Args:
        prompts: tokens of P prompts.
        completions: tokens of their G completions each.
        max_tokens: of a pass; one completion with its prompt goes through even where it exceeds this. None
            for a single pass.
    """
    passes = [Pass()]
    filled = 0
    for prompt, (stem, branches) in enumerate(zip(prompts, completions, strict=True)):
        for number, length in enumerate(branches):
            known = prompt in passes[-1].members
            if max_tokens is not None and filled and filled + length + stem * (not known) > max_tokens:
                passes.append(Pass())
                filled, known = 0, False
            filled += length + stem * (not known)
            passes[-1].members.setdefault(prompt, []).append(number)
    return passes


def extremes(prompts: list[int], completions: list[list[int]], max_tokens: int | None) -> tuple[int, int]:
    """Return tokens of the largest pass as planned, and of the smallest that it could be divided into.

    Args:
        prompts: see :func:`plan_passes`, as the next ones.
        completions: see there.
        max_tokens: see there.
    """
    sizes = [
        sum(prompts[row] + sum(completions[row][one] for one in own) for row, own in part.members.items())
        for part in plan_passes(prompts, completions, max_tokens)
    ]
    alone = [prompt + max(own) for prompt, own in zip(prompts, completions, strict=True)]
    return max(sizes), max(alone)


def chosen_tokens(passes: list[Pass], count: int, mask: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the prompts of each pass and which of their tokens it scores.

    Args:
        passes: as planned.
        count: of the rank with the most passes; a rank with fewer computes empty ones along.
        mask: ``[P, G, C]`` True at the tokens of completions.

    Yields:
        Numbers of the prompts, and a bool mask ``[prompts, G, C]``.
    """
    for members in (part.members for part in [*passes, *[Pass({0: []})] * (count - len(passes))]):
        rows = list(members)
        chosen = torch.zeros_like(mask[rows])
        for row, numbers in enumerate(members.values()):
            chosen[row, numbers] = mask[rows[row], numbers]
        yield rows, chosen
