"""How the next token is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vcr1.errors import UserError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Decoding parameters; ``temperature=0`` is greedy.

    Attributes:
        max_new_tokens: length limit C of a completion, end-of-turn included.
        temperature: divides the logits; 0 takes the most likely token.
        top_p: nucleus mass, 1 keeps all.
        top_k: number of candidates, 0 keeps all.
        min_p: smallest probability relative to the most likely token, 0 keeps all.
        rows: completions decoded at once, further ones wait; None for no bound. No token depends on it.
        compile: whether decode steps are compiled: ``true``, ``false``, or ``auto``, on a GPU where a rollout
            is long enough and a trial agrees with the plain step.

    Raises:
        UserError: a value out of its range, named ``rollout.<field>``.
    """

    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    rows: int | None = 64
    compile: bool | str = "auto"

    def __post_init__(self) -> None:
        ranges = {
            "max_new_tokens": self.max_new_tokens >= 1,
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "min_p": 0 <= self.min_p < 1,
            "rows": self.rows is None or self.rows >= 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"rollout.{name}={getattr(self, name)} is out of range")
        if self.compile not in (True, False, "auto"):
            raise UserError(f"rollout.compile={self.compile}; choose from auto, true, false")

    def greedy(self) -> Sampling:
        """Return the same lengths and sizes without randomness."""
        return Sampling(self.max_new_tokens, temperature=0.0, rows=self.rows, compile=self.compile)

    def distribution(self) -> dict[str, float]:
        """Return the parameters that the distribution of completions depends on, by name."""
        return {name: value for name, value in asdict(self).items() if name not in ("rows", "compile")}

    def processors(self, never: list[int], device: torch.device) -> LogitsProcessorList:
        """Transformers' own processors, in the order in which ``generate`` applies them."""
        processors = LogitsProcessorList()
        if never:
            processors.append(SuppressTokensLogitsProcessor(never, device=str(device)))
        if self.temperature not in (0.0, 1.0):
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.temperature > 0:
            if self.top_k:
                processors.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                processors.append(TopPLogitsWarper(self.top_p))
            if self.min_p:
                processors.append(MinPLogitsWarper(self.min_p))
        return processors


BLOCK = 256
"""Tokens whose probabilities are summed together in a draw."""


def chances(
    seeds: Sequence[int] | None, num_prompts: int, num_generations: int, sampling: Sampling
) -> Tensor:
    """Return the random numbers that completions are drawn with, one for each token.

    They depend on the prompt's seed, the number of the completion and the token's place in it alone: not on
    the other prompts, nor on when and beside what a completion is decoded.

    Args:
        seeds: one for each of P prompts; None takes them from the global randomness.
        num_prompts: P.
        num_generations: G.
        sampling: decoding parameters; greedy decoding uses up no randomness.

    Returns:
        ``[P·G, C]`` float64 in ``[0, 1)`` on the CPU; ``[P·G, 1]`` zeros for greedy decoding.
    """
    if sampling.temperature == 0:
        return torch.zeros(num_prompts * num_generations, 1, dtype=torch.float64)
    if seeds is None:
        seeds = torch.randint(2**62, (num_prompts,)).tolist()
    shape = (num_generations, sampling.max_new_tokens)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.cat([torch.rand(shape, dtype=torch.float64, generator=source) for source in sources])


def draw(scores: Tensor, chance: Tensor) -> Tensor:
    """Return tokens ``[N]``: the first whose cumulative probability exceeds a random number.

    In two steps, by blocks and within one. A running sum over the vocabulary would have no deterministic
    form on a GPU.

    Args:
        scores: ``[N, V]`` processed logits.
        chance: ``[N]`` float64, uniform in ``[0, 1)``.
    """
    weights = F.pad(scores.double().softmax(-1), (0, -scores.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    sums = weights.sum(-1)
    upto = _running_sum(sums)
    wanted = _below(chance * upto[:, -1], upto[:, -1])[:, None]
    block = (upto <= wanted).sum(-1, keepdim=True)
    before = (upto - sums).gather(-1, block)
    within = _running_sum(weights.gather(1, block[..., None].expand(-1, 1, BLOCK))[:, 0])
    rest = _below((wanted - before).clamp_min(0.0)[:, 0], within[:, -1])[:, None]
    return block[:, 0] * BLOCK + (within <= rest).sum(-1)


def _running_sum(values: Tensor) -> Tensor:
    """Return sums ``[N, K]`` of all values up to each."""
    return values @ values.new_ones(values.shape[-1], values.shape[-1]).triu()


def _below(values: Tensor, bound: Tensor) -> Tensor:
    """Return values, less than a positive bound: rounding may have taken them there."""
    return torch.minimum(values, torch.nextafter(bound, torch.zeros_like(bound)))
