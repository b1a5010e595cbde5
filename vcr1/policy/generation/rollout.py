"""The loop that samples completions: rows that have ended make room for prompts that wait."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vcr1.policy.generation.decoding import ReadPrompts, SharedCache, step
from vcr1.policy.generation.sampling import Sampling, draw

Watch = Callable[[Tensor], None]
"""Sees a rollout grow: called with the ids ``[P·G, columns so far]``, padded behind their end."""

Reader = Callable[[Sequence[int]], ReadPrompts]
"""Reads some of the prompts, by number."""

WORTH_LEAVING = 0.75
"""Rows leave when the batch shrinks to this share of its size: moving the others costs about a step."""

LOOK_EVERY = {"cuda": 4}
"""Steps between two looks at which rows have ended, by device: a GPU has to be waited for. 1 elsewhere."""


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


@dataclass(slots=True)
class Batch:
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
    def of(cls, prompts: ReadPrompts, parts: Sequence[range], width: int, longest: int, none: int) -> Batch:
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
        batch = Batch.of(prompts, parts, self.step.size(len(parts[0])), longest, none)
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

    def draw(self, batch: Batch) -> None:
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
