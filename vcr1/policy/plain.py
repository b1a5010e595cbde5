"""Models of families without an adapter: the prompt is computed once for each completion.

Nothing is shared, and nothing of the model is known but what ``generate`` and the forward of any Hugging Face
model promise. Results are those of the shared way, which is several times faster where there is an adapter.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import GenerationConfig
from transformers import __version__ as transformers_version
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from vcr1.policy.generation.groups import joined
from vcr1.policy.generation.rollout import Picker
from vcr1.policy.generation.sampling import Sampling
from vcr1.policy.policy import VideoPolicy
from vcr1.policy.prompts.positions import text_overlaps_video
from vcr1.policy.scoring import TokenScores, head_scores
from vcr1.records import PromptInputs, RolloutGroups

log = logging.getLogger(__name__)


def warn_of_the_plain_path(model: Any) -> None:
    """Say, on the first rank only, what a family without an adapter costs, and if its positions are odd."""
    from lightning.pytorch.utilities import rank_zero_only  # here: lmms-eval imports vcr1.policy without it

    name, warn = model.config.model_type, rank_zero_only(log.warning)
    warn(
        "family %s has no adapter: a prompt is computed once for each of its completions, which is slower "
        "and takes more memory; the results are the same. With an adapter in vcr1/policy/families they "
        "would share it",
        name,
    )
    if text_overlaps_video(model):
        warn(
            "family %s: transformers %s places the text behind a video inside the video's own times, not "
            "behind them; if the weights were trained otherwise, long videos are answered worse, and another "
            "family or another version of transformers is the better choice",
            name,
            transformers_version,
        )


class PlainPolicy(VideoPolicy):
    """A policy that goes through the model's own ``generate`` and forward.

    Videos are encoded inside of these, once for each completion: :meth:`vision` has nothing to hand over.
    ``attention_form`` and ``tree_attention`` have no meaning here; ``max_tokens`` counts a prompt for each of
    its completions.
    """

    shares_prompts = False

    def _prepare(self) -> None:
        """The model's attention stays as it is; its configuration may name more tokens to keep out."""
        config = self.model.config.to_dict()
        vocabulary = self.model.config.get_text_config().vocab_size
        named = {
            int(value)
            for name, value in config.items()
            if name.endswith(("_token_id", "_token_index")) and value in range(vocabulary)
        }
        never = set(self.never_sampled) | named
        self.never_sampled = sorted(never - set(self.encoder.stops))

    def vision(self, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """Nothing: the forward encodes the videos itself."""
        return [None] * len(inputs)

    def _decode(
        self,
        inputs: list[PromptInputs],
        features: list[Tensor | None],
        num_generations: int,
        sampling: Sampling,
        chance: Tensor,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        """Sample by ``generate``, one prompt after the other; ids and log-probs ``[P·G, C]``."""
        parts = [
            self._generate(item, sampling, luck)
            for item, own in zip(inputs, chance.split(num_generations), strict=True)
            for luck in own.split(rows)
        ]
        return joined(parts, self.encoder.padding)

    def _generate(self, inputs: PromptInputs, sampling: Sampling, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and log-probs ``[G, c]`` of one prompt's completions; ``chance``: ``[G, C]``."""
        length = inputs["input_ids"].shape[1]
        device = inputs["input_ids"].device
        drawing = Drawing(Picker(sampling, self.never_sampled, device), chance.to(device))
        padding = self.encoder.padding
        forget_positions(self.model)
        with own_settings(self.model):
            found = self.model.generate(
                **repeated(self._cast(inputs), len(chance)),
                generation_config=GenerationConfig(
                    max_new_tokens=sampling.max_new_tokens,
                    do_sample=False,  # the processor draws
                    eos_token_id=list(self.encoder.stops),
                    pad_token_id=padding,
                    use_cache=True,
                ),
                logits_processor=LogitsProcessorList([drawing]),
            )
        ids = found[:, length:]
        ends = self.encoder.ends(ids).long()
        # generate() goes on drawing for what has ended, and may look one step further than it returns.
        logprobs = torch.stack(drawing.logprobs, 1)[:, : ids.shape[1]]
        return ids, logprobs.masked_fill(ends.cumsum(1) - ends > 0, 0.0)

    def _costs(self, groups: RolloutGroups) -> tuple[list[int], list[list[int]]]:
        """Return a completion costs its prompt as well."""
        prompts = [item["input_ids"].shape[1] for item in groups.inputs]
        rows = groups.lengths.tolist()
        return [0] * len(prompts), [
            [prompt + own for own in row] for prompt, row in zip(prompts, rows, strict=True)
        ]

    def _score(
        self,
        groups: RolloutGroups,
        features: list[Tensor | None],
        temperature: float,
        flex: bool = False,
        chosen: Tensor | None = None,
    ) -> TokenScores:
        """Score by a forward for each prompt: all tokens, or those ``chosen`` ``[P, G, C]``."""
        mask = groups.completion_mask if chosen is None else chosen
        logprobs: list[Tensor] = []
        entropies: list[Tensor] = []
        prompts: list[Tensor | None] = []
        for row, item in enumerate(groups.inputs):
            numbers = mask[row].any(-1).nonzero()[:, 0]
            width = int(mask[row].sum(-1).max())
            ids = groups.completion_ids[row, numbers, :width]
            # What pads a completion might be a placeholder for a video; its end never is.
            ids = ids.masked_fill(~mask[row, numbers, :width], self.encoder.end_of_turn)
            logits, prompt = self._forward(item, ids)
            found = head_scores(nn.Identity(), logits.flatten(0, 1), ids.flatten(), temperature or 1.0)
            for values, everyone in zip(found, (logprobs, entropies), strict=True):
                own = pad(values.view(ids.shape), (0, mask.shape[2] - width))
                everyone.append(own.new_zeros(mask.shape[1:]).index_copy(0, numbers, own))
            prompts.append(prompt)
        return TokenScores(
            logprobs=torch.stack(logprobs).masked_fill(~mask, 0.0),
            entropy=torch.stack(entropies).masked_fill(~mask, 0.0),
            prompt_hidden=left_padded([prompt for prompt in prompts if prompt is not None], len(prompts)),
        )

    def _forward(self, inputs: PromptInputs, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one prompt with each of its completions behind it.

        Args:
            inputs: the prompt.
            ids: ``[N, c]`` completions.

        Returns:
            Logits ``[N, c, V]`` that predict ``ids``, and the prompt's last hidden states ``[L, D]`` where
            the model tells them.
        """
        count, width = ids.shape
        length = inputs["input_ids"].shape[1]
        settings: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            settings["logits_to_keep"] = width
        forget_positions(self.model)
        with last_hidden(self.model) as seen:
            # The last token predicts none.
            longer = followed_by(repeated(self._cast(inputs), count), ids[:, :-1])
            logits: Tensor = self.model(**longer, **settings).logits[:, -width:]
        fits = seen and seen[-1].shape[:2] == (count, length + width - 1)
        return logits, seen[-1][0, :length] if fits else None

    def _cast(self, inputs: PromptInputs) -> PromptInputs:
        """Pixels in the model's type: not every family casts them. Times are left as exact as they are."""
        return {
            name: value.to(self.model.dtype)
            if name.startswith("pixel") and value.is_floating_point()
            else value
            for name, value in inputs.items()
        }


class Drawing(LogitsProcessor):
    """Draws the next tokens in place of ``generate``, which knows no randomness but the global one.

    Args:
        pick: draws.
        chance: ``[G, C]`` see :func:`~vcr1.policy.generation.sampling.chances`.

    Attributes:
        logprobs: ``[G]`` log-probs of the tokens drawn, step by step.
    """

    def __init__(self, pick: Picker, chance: Tensor) -> None:
        self.pick = pick
        self.chance = chance
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores ``[G, V]`` of which the token drawn has the only finite one."""
        # generate() may look one step further than it returns.
        column = min(len(self.logprobs), self.chance.shape[1] - 1)
        drawn, logs = self.pick(scores, self.chance[:, column])
        self.logprobs.append(logs)
        only: Any = torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)
        return only


def repeated(inputs: PromptInputs, count: int) -> PromptInputs:
    """Return one prompt's inputs ``count`` times, one behind the other.

    Right for what has a row for each prompt, and as well for what has one for each video, frame or patch:
    these are told apart by their order alone.
    """
    return {
        name: value.repeat(count, *[1] * (value.dim() - 1)) if value.dim() else value
        for name, value in inputs.items()
    }


def followed_by(inputs: PromptInputs, ids: Tensor) -> PromptInputs:
    """Return prompts with tokens behind them.

    Args:
        inputs: N prompts; what has a value for each of their tokens, such as token types, goes on with zeros,
            the attention mask with ones.
        ids: ``[N, c]``.
    """
    shape = inputs["input_ids"].shape
    tails = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {
        name: torch.cat([value, tails.get(name, torch.zeros_like(ids)).to(value.dtype)], 1)
        if value.shape == shape
        else value
        for name, value in inputs.items()
    }


def left_padded(prompts: list[Tensor], expected: int) -> Tensor | None:
    """Return ``[P, L, D]`` out of P tensors ``[l, D]``; None where some are missing."""
    if len(prompts) < expected:
        return None
    return nn.utils.rnn.pad_sequence([prompt.flip(0) for prompt in prompts], batch_first=True).flip(1)


def forget_positions(model: nn.Module) -> None:
    """Drop what relatives of Qwen-VL keep of the prompt before, and would apply to one without a video."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None  # type: ignore[assignment]


@contextmanager
def own_settings(model: Any) -> Iterator[None]:
    """Generation without the settings that come with the weights, such as a repetition penalty."""
    theirs = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = theirs


@contextmanager
def last_hidden(model: Any) -> Iterator[list[Tensor]]:
    """Collects the last hidden states ``[N, S, D]`` of the model's body, forward by forward."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is not None:
            seen.append(hidden)

    handle = model.base_model.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
