"""Seconds per phase of a training step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("data", "vision", "rollout", "reward", "reference", "policy", "optimizer")


class PhaseTimer:
    """Adds up seconds by phase until they are taken.

    On a GPU it waits for the device at the borders of a phase, so that a phase is charged for its own
    work; phases last seconds there, the wait costs microseconds.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._mark = time.perf_counter()

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def mark(self) -> None:
        """Start a span that :meth:`charge` will end."""
        self._mark = self._now()

    def charge(self, phase: str) -> None:
        """Add the time since the last mark or charge to ``phase``."""
        now = self._now()
        self._seconds[phase] += now - self._mark
        self._mark = now

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the block to ``phase``."""
        self.mark()
        yield
        self.charge(phase)

    def take(self) -> dict[str, float]:
        """Return seconds of every phase since the last call."""
        taken, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return taken
