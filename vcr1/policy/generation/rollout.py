"""The loop that samples completions; rows that have ended leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vcr1.policy.generation.decoding import SharedCache, prefill, step
from vcr1.policy.generation.sampling import Sampling, draw
from vcr1.policy.prompts.layout import PromptLayout

Watch = Callable[[Tensor], None]
"""Sees a rollout grow: called with the ids ``[P·G, columns so far]``, padded behind their end."""

WORTH_LEAVING = 0.75
"""Rows leave when the batch shrinks to this share of its size: moving the others costs about a step."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens that a rollout treats in its own way.

    Attributes:
        ends: tokens each of which ends a completion.
        padding: the token that follows them.
        never: tokens that must not be drawn.
    """

    ends: tuple[int, ...]
    padding: int
    never: list[int]


@dataclass(frozen=True, slots=True)
class Slots:
    """The completions that are still in the batch, and their places.

    Completions are numbered ``prompt · G + generation`` from the beginning to the end.

    Attributes:
        held: ``[P', S']`` the completion in each slot; a prompt with fewer than S' holds one several times.
        rows: ``[N]`` the completions in the batch, each once.
        places: ``[N]`` the first slot, flattened, of each.
    """

    held: Tensor
    rows: Tensor
    places: Tensor

    @classmethod
    def all_of(cls, num_prompts: int, num_generations: int, device: torch.device) -> Slots:
        """Return every completion in a slot of its own."""
        rows = torch.arange(num_prompts * num_generations, device=device)
        return cls(rows.view(num_prompts, num_generations), rows, rows)


def sample_completions(
    model: Any,
    layout: PromptLayout,
    num_generations: int,
    sampling: Sampling,
    special: SpecialTokens,
    generator: torch.Generator | None,
    one_by_one: bool,
    max_over_ranks: Callable[[int], int] | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample G completions of each of P prompts.

    Chance does not depend on which rows have left: each step draws for all P·G of them.

    Args:
        model: the Hugging Face model, in evaluation mode.
        layout: the prompts.
        num_generations: G.
        sampling: decoding parameters.
        special: tokens that end, fill, or must not be drawn.
        generator: source of randomness, the global one where None.
        one_by_one: read the prompts one by one; see :func:`~vcr1.policy.generation.decoding.prefill`.
        max_over_ranks: return the largest of all ranks' counts, where ranks can only take a step together:
            then none stops before the last one has.
        watch: called after each step.

    Returns:
        Ids and log-probs, both ``[P·G, C]``.
    """
    total, limit = len(layout.embeds) * num_generations, sampling.max_new_tokens
    logits, cache = prefill(model, layout, one_by_one)
    device = logits.device
    logits = logits.repeat_interleave(num_generations, 0)
    positions = layout.next_position.repeat_interleave(num_generations)
    slots = Slots.all_of(len(layout.embeds), num_generations, device)
    ids = torch.full((total, limit), special.padding, dtype=torch.long, device=device)
    logprobs = torch.zeros(total, limit, dtype=torch.float32, device=device)
    finished = torch.zeros(total, dtype=torch.bool, device=device)
    pick = Picker(sampling, special.never, total, generator, device)
    ends = torch.tensor(special.ends, device=device)
    length, over = 0, False
    for column in range(limit):
        length += not over
        rows = slots.rows
        drawn, logs = pick(logits[slots.places].float(), rows)
        ids[rows, column] = drawn.masked_fill(finished[rows], special.padding)
        logprobs[rows, column] = logs.masked_fill(finished[rows], 0.0)
        finished[rows] |= torch.isin(drawn, ends)
        if watch is not None:
            watch(ids[:, :length])
        done = finished.view(-1, num_generations).cpu()
        over = bool(done.all())
        if column + 1 == limit or (over if max_over_ranks is None else not max_over_ranks(int(not over))):
            return ids[:, :length], logprobs[:, :length]
        slots = slots if over else compact_finished(slots, done, cache)
        held = slots.held.flatten()
        logits = step(model, cache, ids[held, column], positions[held] + column)
    raise AssertionError("max_new_tokens is at least 1")


class Picker:
    """Draws one token for each row, and says how likely it was.

    Args:
        sampling: decoding parameters.
        never: tokens that must not be drawn.
        total: rows that chance is used up for, present or not.
        generator: source of randomness, the global one where None.
        device: where the rows are.
    """

    def __init__(
        self,
        sampling: Sampling,
        never: list[int],
        total: int,
        generator: torch.Generator | None,
        device: torch.device,
    ) -> None:
        self.sampling = sampling
        self.total = total
        self.generator = generator
        self.never = torch.tensor(never, dtype=torch.long, device=device)
        self.processors = sampling.processors([], device)

    def __call__(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens ``[N]`` and their log-probs under the model ``[N]``, at the sampling's temperature.

        Args:
            logits: ``[N, V]``.
            rows: ``[N]`` which of all rows they are.
        """
        nothing = rows.new_empty(len(rows), 0)
        # Not by transformers' processor, which looks for them in the whole vocabulary at every step.
        scores = self.processors(nothing, logits.index_fill(1, self.never, -torch.inf))  # type: ignore[arg-type]
        if len(rows) < self.total and self.sampling.temperature > 0:
            everyone = scores.new_zeros(self.total, scores.shape[1]).index_copy_(0, rows, scores)
            drawn = draw(everyone, False, self.generator)[rows]
        else:
            drawn = draw(scores, self.sampling.temperature == 0, self.generator)
        logits = logits / (self.sampling.temperature or 1.0)
        return drawn, logits.gather(-1, drawn[:, None])[:, 0] - logits.logsumexp(-1)


def compact_finished(slots: Slots, finished: Tensor, cache: SharedCache) -> Slots:
    """Take completions that have ended out of the batch, if that pays.

    Args:
        slots: the batch as it is.
        finished: ``[P, G]`` bool on the CPU, True where a completion has ended; not all have.
        cache: is cut to what stays.
    """
    num_generations = finished.shape[1]
    alive = [(~group).nonzero()[:, 0].tolist() for group in finished]
    width = max(map(len, alive))
    groups = [prompt for prompt, members in enumerate(alive) if members]
    if len(groups) * width > WORTH_LEAVING * slots.held.numel():
        return slots
    # A prompt with fewer completions than others repeats its first: rows of a batch are of one length.
    wanted = [
        [prompt * num_generations + member for member in alive[prompt]]
        + [prompt * num_generations + alive[prompt][0]] * (width - len(alive[prompt]))
        for prompt in groups
    ]
    before = slots.held.cpu().tolist()
    prompts = {group[0] // num_generations: place for place, group in enumerate(before)}
    device = slots.held.device
    held = torch.tensor(wanted, device=device)
    cache.keep(
        torch.tensor([prompts[prompt] for prompt in groups], device=device),
        torch.tensor(
            [
                [before[prompts[prompt]].index(row) for row in row_ids]
                for prompt, row_ids in zip(groups, wanted, strict=True)
            ],
            device=device,
        ),
    )
    rows = [
        row for prompt, row_ids in zip(groups, wanted, strict=True) for row in row_ids[: len(alive[prompt])]
    ]
    places = [
        place * width + member for place, prompt in enumerate(groups) for member in range(len(alive[prompt]))
    ]
    return Slots(held, torch.tensor(rows, device=device), torch.tensor(places, device=device))
