"""Completions as records: what a decoder or a teacher gives, in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from vcr1.policy.generation.sampling import Sampling
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.records import PromptInputs, RolloutGroups


class RolloutEngine(Protocol):
    """Samples completions: prompts with their videos in; ids, log-probs and reasons of the end out.

    :class:`~vcr1.policy.VideoPolicy` is one, which decodes over shared prompts. Another, such as a server
    beside the trainer, may take its place where a module asks for rollouts.
    """

    def rollout(
        self,
        inputs: list[PromptInputs],
        features: list[Tensor | None],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> RolloutGroups:
        """Sample G completions of each of P prompts.

        Args:
            inputs: P prompt inputs, whole, pixels and times included.
            features: the policy's video features of them; an engine with its own vision tower needs none.
            num_generations: G.
            sampling: decoding parameters.
            seeds: of each prompt's completions; None draws them from the global randomness.

        Returns:
            Ids, log-probs under the model at the sampling's temperature, texts, and whether the length limit
            ended each completion.
        """


def completed_groups(
    encoder: PromptEncoder, inputs: list[PromptInputs], num_generations: int, ids: Tensor, logprobs: Tensor
) -> RolloutGroups:
    """Return decoded completions as records.

    Args:
        encoder: of the model.
        inputs: P prompt inputs.
        num_generations: G.
        ids: ``[P·G, C]``, padded after their end-of-turn.
        logprobs: ``[P·G, C]`` of the sampler.
    """
    ends = encoder.ends(ids).long()
    mask = (ends.cumsum(1) - ends) == 0
    texts = [encoder.decode(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]
    shape = (len(inputs), num_generations, ids.shape[1])
    return RolloutGroups(
        inputs=inputs,
        completion_ids=ids.view(shape),
        completion_mask=mask.view(shape),
        logprobs=logprobs.view(shape),
        truncated=(ends.sum(1) == 0).view(shape[:2]),
        texts=[texts[i : i + num_generations] for i in range(0, len(texts), num_generations)],
    )


def check_numbers(groups: RolloutGroups) -> RolloutGroups:
    """Return a rollout whose log-probs are numbers: what a broken model draws is no answer.

    Raises:
        RuntimeError: they are not finite.
    """
    if not groups.logprobs.isfinite().all():
        raise RuntimeError("its logits are not finite numbers")
    return groups


def taught_groups(
    encoder: PromptEncoder, inputs: list[PromptInputs], answers: Sequence[str]
) -> RolloutGroups:
    """Return given answers in the shape of a rollout with G = 1, for supervised fine-tuning."""
    rows = [torch.tensor(encoder.completion_ids(answer)) for answer in answers]
    ids = pad_sequence(rows, batch_first=True, padding_value=encoder.padding)
    ids = ids.to(inputs[0]["input_ids"].device)
    return completed_groups(encoder, inputs, 1, ids, torch.zeros(ids.shape, device=ids.device).float())


def joined(parts: Sequence[tuple[Tensor, Tensor]], padding: int) -> tuple[Tensor, Tensor]:
    """Return ids and log-probs of several decodings ``[n, c]`` as one ``[sum of n, largest c]``."""
    width = max(ids.shape[1] for ids, _ in parts)
    ids = [pad(ids, (0, width - ids.shape[1]), value=padding) for ids, _ in parts]
    return torch.cat(ids), torch.cat([pad(logs, (0, width - logs.shape[1])) for _, logs in parts])
