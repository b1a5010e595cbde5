"""Decode steps that are compiled: on a GPU one CUDA graph for each size of batch."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from vcr1.errors import UserError
from vcr1.policy.generation.decoding import SharedCache, step
from vcr1.policy.generation.sampling import Sampling
from vcr1.policy.generation.slots import PlainStep, Step

log = logging.getLogger(__name__)

PAYS_ON = {"cuda": 128}
"""Length limit from which ``auto`` compiles, by device. Not on a CPU: that takes a minute or two there, and
wins a third of a step."""


class CompiledStep:
    """A decode step by ``torch.compile``, held to the plain one at its first call.

    One compilation serves all sizes but those of a single prompt or slot. Batches come in few sizes, powers
    of 2, as on a GPU each of them is recorded as a CUDA graph.

    Args:
        device: type of the device.
        strict: raise where it cannot be compiled or differs from the plain step; else go on with that.
    """

    def __init__(self, device: str, strict: bool) -> None:
        mode = "reduce-overhead" if device == "cuda" else None
        self._compiled: Any = torch.compile(step, dynamic=True, mode=mode)
        self._strict = strict
        self._tried = False
        self.agrees = True

    def size(self, wanted: int) -> int:
        """Return the number of prompts, or of slots, that a batch has which needs so many."""
        return 1 << (wanted - 1).bit_length() if self.agrees else wanted

    def __call__(self, model: Any, cache: SharedCache, ids: Tensor, positions: Tensor) -> Tensor:
        """Return logits ``[P·S, V]`` after one more token in every slot."""
        if not self._tried:
            return self._trial(model, cache, ids, positions)
        if not self.agrees:
            return step(model, cache, ids, positions)
        logits: Tensor = self._compiled(model, cache, ids, positions)
        return logits.clone()  # the next replay of a CUDA graph would write there

    def _trial(self, model: Any, cache: SharedCache, ids: Tensor, positions: Tensor) -> Tensor:
        """Compute a step in both forms; it writes the same keys and values twice."""
        self._tried = True
        plain = step(model, cache, ids, positions)
        try:
            found: Tensor = self._compiled(model, cache, ids, positions)
            error = (found.float().log_softmax(-1) - plain.float().log_softmax(-1)).abs().max().item()
            bound = (
                1e-3
                if plain.dtype == torch.float32 and not torch.is_autocast_enabled(plain.device.type)
                else 0.5
            )
            reason = "" if error <= bound else f"its log-probs differ by {error:.2g} from the plain step's"
        except torch.OutOfMemoryError:
            raise
        except Exception as failure:  # whatever a compiler may raise
            reason = str(failure).strip().split("\n")[0]
        if reason:
            self.agrees = False
            if self._strict:
                raise UserError(f"rollout.compile=true: the decode step cannot be compiled here: {reason}")
            log.warning("rollout.compile=auto: decode steps are not compiled: %s", reason)
        return plain


class Steps:
    """The forms of a decode step of one policy; the compiled one is kept from rollout to rollout."""

    def __init__(self) -> None:
        self._compiled: CompiledStep | None = None

    def of(self, sampling: Sampling, device: torch.device, sharded: bool = False) -> Step:
        """Return the form that the sampling's ``compile`` asks for.

        Args:
            sampling: decoding parameters.
            device: where it is computed.
            sharded: the weights are spread over ranks: what gathers them is not compiled.

        Raises:
            UserError: a compiled step is asked for, of weights that are spread over ranks.
        """
        if sharded and sampling.compile is True:
            raise UserError("rollout.compile=true compiles no weights that are spread over ranks; set auto")
        least = PAYS_ON.get(device.type)
        pays = least is not None and sampling.max_new_tokens >= least
        if sharded or sampling.compile is False or (sampling.compile == "auto" and not pays):
            return PlainStep()
        if self._compiled is None:
            self._compiled = CompiledStep(device.type, strict=sampling.compile is True)
        return self._compiled
