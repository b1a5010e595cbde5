"""Log-probabilities and entropies out of hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vcr1.policy.attention.packing import PackedGroups

HEAD_ROWS = 1024
"""Hidden states that go through the LM head at once: bounds the logits kept in memory."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log-probs and entropies of given completions under a model.

    Attributes:
        logprobs: ``[P, G, C]`` log-probability of each completion token; 0 at padding. Float32, or float64
            where the model is.
        entropy: ``[P, G, C]`` float32 entropy of the distribution it came from, in nats; 0 at padding.
        prompt_hidden: ``[P, L, D]`` last hidden states of the prompts, padded on the left: what an auxiliary
            loss may ask for without another pass. None where a family's forward does not tell them.
    """

    logprobs: Tensor
    entropy: Tensor
    prompt_hidden: Tensor | None


# FSDP looks for the tensors in a forward's output, to gather weights again before their gradients come.
torch.export.register_dataclass(TokenScores)


def token_scores(
    head: Any, packed: PackedGroups, hidden: Tensor, ids: Tensor, mask: Tensor, temperature: float
) -> TokenScores:
    """Score the completions of packed groups.

    Args:
        head: the LM head, from ``[N, D]`` to logits ``[N, V]``.
        packed: where each token's prediction stands.
        hidden: ``[B·S, D]`` last hidden states.
        ids: ``[P, G, C]`` the completions' tokens.
        mask: ``[P, G, C]`` bool, True at tokens.
        temperature: divides the logits.
    """
    targets = ids.flatten()[packed.scored]
    # Not hidden[...]: the gradient of an index with repetitions is added up one by one.
    before = hidden.index_select(0, packed.predicts)
    found = head_scores(head, before, targets, temperature)
    logprobs, entropy = (
        values.new_zeros(ids.numel()).index_copy(0, packed.scored, values).view(ids.shape) for values in found
    )
    prompts = [hidden[place].flip(0) for place in packed.prompt_places]
    return TokenScores(
        logprobs=logprobs.masked_fill(~mask, 0.0),
        entropy=entropy.masked_fill(~mask, 0.0),
        prompt_hidden=nn.utils.rnn.pad_sequence(prompts, batch_first=True).flip(1),
    )


def gather_scores(num_prompts: int, parts: list[tuple[list[int], TokenScores]]) -> TokenScores:
    """Return the scores of P groups out of several passes.

    Args:
        num_prompts: P.
        parts: each pass's prompts and its scores, 0 at the tokens that other passes score.
    """
    sums = []
    for values in ([part.logprobs for _, part in parts], [part.entropy for _, part in parts]):
        total = values[0].new_zeros(num_prompts, *values[0].shape[1:])
        for (rows, _), value in zip(parts, values, strict=True):
            total = total.index_add(0, torch.tensor(rows, device=value.device), value)
        sums.append(total)
    told = [(rows, part.prompt_hidden) for rows, part in parts if part.prompt_hidden is not None]
    if len(told) < len(parts):
        return TokenScores(sums[0], sums[1], None)
    longest = max(states.shape[1] for _, states in told)
    hidden: dict[int, Tensor] = {}
    for rows, states in told:
        padded = nn.functional.pad(states, (0, 0, longest - states.shape[1], 0))
        hidden |= {row: state for row, state in zip(rows, padded, strict=True) if row not in hidden}
    return TokenScores(sums[0], sums[1], torch.stack([hidden[row] for row in range(num_prompts)]))


def head_scores(head: Any, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[N]`` of ``ids`` after ``hidden`` ``[N, D]``; logits never all alive."""

    def scores(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(rows)
        exact = torch.promote_types(logits.dtype, torch.float32)
        logs = (logits.to(exact) / temperature).log_softmax(-1)
        # The entropy is a metric, not part of the loss: no graph for it.
        entropy = -(logs.detach().exp() * logs.detach()).sum(-1)
        return logs.gather(-1, targets[:, None])[:, 0], entropy

    chunks = zip(hidden.split(HEAD_ROWS), ids.split(HEAD_ROWS), strict=True)
    if torch.is_grad_enabled() and len(hidden) > HEAD_ROWS:
        parts = [checkpoint(scores, rows, targets, use_reentrant=False) for rows, targets in chunks]
    else:
        parts = [scores(rows, targets) for rows, targets in chunks]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
