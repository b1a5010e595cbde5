"""How the next token is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
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

    Raises:
        UserError: a value out of its range, named ``rollout.<field>``.
    """

    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "max_new_tokens": self.max_new_tokens >= 1,
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "min_p": 0 <= self.min_p < 1,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(f"rollout.{name}={getattr(self, name)} is out of range")

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


def draw(scores: Tensor, greedy: bool, generator: torch.Generator | None = None) -> Tensor:
    """Return next tokens ``[B]`` from processed scores ``[B, V]``."""
    if greedy:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(1)
