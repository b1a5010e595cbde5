"""The loop that samples completions: rows that have ended make room for prompts that wait."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vcr1.policy.generation.decoding import ReadPrompts
from vcr1.policy.generation.sampling import Sampling, draw
from vcr1.policy.generation.slots import PlainStep, Slots, Step, parts_of_prompts

Watch = Callable[[Tensor], None]
"""Sees a rollout grow: called with the ids ``[P·G, columns so far]``, padded behind their end."""

Reader = Callable[[Sequence[int]], ReadPrompts]
"""Reads some of the prompts, by number."""

LOOK_EVERY = {"cuda": 4}
"""Steps between two looks at which rows have ended, by device: a GPU has to be waited for. 1 elsewhere."""


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


class Picker:
    """Draws one token for each row, and says how likely it was.

    Args:
        sampling: decoding parameters.
        never: tokens that must not be drawn.
        device: where the rows are.
    """

    def __init__(self, sampling: Sampling, never: list[int], device: torch.device) -> None:
        self.temperature = sampling.temperature
        self.never = torch.tensor(never, dtype=torch.long, device=device)
        self.processors = sampling.processors([], device)

    def __call__(self, logits: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens ``[N]`` and their log-probs under the model ``[N]``, at the sampling's temperature.

        Args:
            logits: ``[N, V]``.
            chance: ``[N]`` random numbers, see :func:`~vcr1.policy.generation.sampling.chances`; unused by
                greedy decoding.
        """
        logits = logits.float()
        nothing = self.never.new_empty(len(logits), 0)
        # Not by transformers' processor, which looks for them in the whole vocabulary at every step.
        scores = self.processors(nothing, logits.index_fill(1, self.never, -torch.inf))  # type: ignore[arg-type]
        drawn = draw(scores, chance) if self.temperature > 0 else scores.argmax(-1)
        logits = logits / (self.temperature or 1.0)
        return drawn, logits.gather(-1, drawn[:, None])[:, 0] - logits.logsumexp(-1)


class CompletionSampler:
    """Samples G completions of each of P prompts.

    Args:
        model: the Hugging Face model, in evaluation mode.
        sampling: decoding parameters.
        special: tokens that end, fill, or must not be drawn.
        step: how a decode step is computed.
        rows: bound of completions decoded at once; None for no bound. What does not fit at first waits, and
            enters when all completions of another prompt have ended.
        max_over_ranks: return the largest of all ranks' counts, where ranks can only take a step together:
            then none stops before the last one has, and there must be no bound.
        watch: called after each step.
    """

    def __init__(
        self,
        model: Any,
        sampling: Sampling,
        special: SpecialTokens,
        *,
        step: Step | None = None,
        rows: int | None = None,
        max_over_ranks: Callable[[int], int] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model = model
        self.special = special
        self.limit = sampling.max_new_tokens
        self.step = PlainStep() if step is None else step
        self.rows = rows
        self.max_over_ranks = max_over_ranks
        self.watch = watch
        self.sampling = sampling

    def __call__(
        self, read: Reader, lengths: Sequence[int], num_generations: int, chance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ids and log-probs, both ``[P·G, C]``.

        Args:
            read: reads prompts.
            lengths: tokens of each of P prompts.
            num_generations: G.
            chance: ``[P·G, C]`` see :func:`~vcr1.policy.generation.sampling.chances`.
        """
        none = len(lengths) * num_generations
        waiting, places = parts_of_prompts(len(lengths), num_generations, self.rows)
        parts = [waiting.popleft() for _ in range(places)]
        prompts = read([part[0] // num_generations for part in parts])
        longest = max(lengths) if waiting else prompts.padding.shape[1]
        batch = Slots.of(prompts, parts, self.step.size(len(parts[0])), longest, none)
        sheet = Sheet(none, self.limit, self.special, self.sampling, chance, batch.held.device)
        every = 1 if self.max_over_ranks else LOOK_EVERY.get(batch.held.device.type, 1)
        for count in itertools.count(1):
            sheet.draw(batch)
            if self.watch is not None:
                self.watch(sheet.ids[:none, : max(batch.columns) + 1])
            entering: list[tuple[int, range]] = []
            if count % every == 0 or max(batch.columns) + 1 == self.limit:
                alive = [
                    [slot for slot, row in enumerate(rows) if row < none] for rows in batch.held.tolist()
                ]
                over = not waiting and not any(alive)
                if over if self.max_over_ranks is None else not self.max_over_ranks(int(not over)):
                    break
                free = [place for place, members in enumerate(alive) if not members]
                entering = [(place, waiting.popleft()) for place in free[: len(waiting)]]
                if not waiting and not entering and not over:
                    batch.shrink(alive, none, self.step.size)
            if len(entering) < len(batch.columns):
                batch.advance(self.model, self.step, self.limit)
            if entering:
                prompts = read([part[0] // num_generations for _, part in entering])
                for row, (place, part) in enumerate(entering):
                    batch.enter(place, prompts, row, part, none)
        return sheet.written()


class Sheet:
    """What has been drawn.

    Args:
        total: of completions; this number itself stands for none.
        limit: C.
        special: tokens that end, fill, or must not be drawn.
        sampling: decoding parameters.
        chance: ``[total, C]``.
        device: where it is kept.
    """

    def __init__(
        self,
        total: int,
        limit: int,
        special: SpecialTokens,
        sampling: Sampling,
        chance: Tensor,
        device: torch.device,
    ) -> None:
        self.total = total
        self.limit = limit
        # One row more than there are completions takes what is drawn for none.
        self.ids = torch.full((total + 1, limit), special.padding, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(total + 1, limit, dtype=torch.float32, device=device)
        self.chance = torch.cat([chance, chance[:1]]).to(device)
        self.pick = Picker(sampling, special.never, device)
        self.ends = torch.tensor(special.ends, device=device)

    def draw(self, batch: Slots) -> None:
        """Draw and write a token for each completion in a batch, and take out of it those that have ended."""
        columns = batch.cache.columns[:, None]
        chance = self.chance[batch.held, columns.clamp_max(self.chance.shape[1] - 1)]
        drawn, logs = (found.view_as(batch.held) for found in self.pick(batch.logits, chance.flatten()))
        self.ids[batch.held, columns] = drawn
        self.logprobs[batch.held, columns] = logs
        batch.drawn = drawn
        ended = torch.isin(drawn, self.ends) | (columns + 1 == self.limit)
        batch.held = batch.held.masked_fill(ended, self.total)

    def written(self) -> tuple[Tensor, Tensor]:
        """Return ids and log-probs, both ``[total, C]``, as wide as the longest completion."""
        ended = torch.isin(self.ids[: self.total], self.ends)
        lengths = torch.where(ended.any(1), ended.long().argmax(1) + 1, self.limit)
        width = int(lengths.max())
        return self.ids[: self.total, :width], self.logprobs[: self.total, :width]
