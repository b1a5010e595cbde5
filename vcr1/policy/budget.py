"""Which completions go through one forward together, so that its memory stays within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward computes: prompts, and some of their completions.

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
    """Tokens of the largest pass as planned, and of the smallest that it could be divided into.

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
