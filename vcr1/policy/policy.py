"""The policy: a video language model that rolls out completions and scores them."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel

from vcr1.policy.encoding import PromptEncoder
from vcr1.policy.prompts import PromptLayout, lay_out, pack, video_features
from vcr1.policy.sampling import Sampling, draw
from vcr1.records import PromptInputs, RolloutGroups

HEAD_ROWS = 1024
"""Hidden states that go through the LM head at once: bounds the logits kept in memory."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says of completions that exist already.

    Attributes:
        logprobs: ``[P, G, C]`` float32 log-probability of each completion token; 0 at padding.
        entropy: ``[P, G, C]`` float32 entropy of the distribution it came from, in nats; 0 at padding.
        prompt_hidden: ``[P, L, D]`` last hidden states of the prompts, padded on the left: what an auxiliary
            loss may ask for without another pass.
    """

    logprobs: Tensor
    entropy: Tensor
    prompt_hidden: Tensor


class VideoPolicy(nn.Module):
    """A Hugging Face video language model together with its encoder.

    Args:
        model: a Qwen2.5-VL for conditional generation.
        encoder: the encoder of the same model.
    """

    def __init__(self, model: PreTrainedModel, encoder: PromptEncoder) -> None:
        super().__init__()
        self.model: Any = model
        self.encoder = encoder
        self._never_sampled = encoder.never_sampled(self.model.config.get_text_config().vocab_size)

    @property
    def vision_is_frozen(self) -> bool:
        """True where no parameter of the vision tower is trained."""
        return not any(parameter.requires_grad for parameter in self.model.model.visual.parameters())

    def vision(self, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """One vision pass over the prompts' videos; see :func:`~vcr1.policy.prompts.video_features`."""
        return video_features(self.model, inputs)

    @torch.no_grad()
    def rollout(
        self,
        inputs: list[PromptInputs],
        features: list[Tensor | None],
        num_generations: int,
        sampling: Sampling,
        generator: torch.Generator | None = None,
    ) -> RolloutGroups:
        """Sample G completions per prompt. The group shares the vision pass and one prefill.

        Args:
            inputs: P prompt inputs on the model's device.
            features: their video features; the graph behind them is not touched.
            num_generations: G.
            sampling: decoding parameters.
            generator: source of randomness, the global one where None.
        """
        layout = lay_out(self.model, inputs, features)
        with self._evaluating():
            ids, logprobs = self._decode(layout, num_generations, sampling, generator)
        return self._groups(inputs, num_generations, ids, logprobs)

    def _decode(
        self,
        layout: PromptLayout,
        num_generations: int,
        sampling: Sampling,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Prefill P prompts, then decode P·G rows. Returns ids and log-probs, both ``[P·G, C]``."""
        cache = DynamicCache(config=self.model.config.get_text_config())
        logits = self._forward(layout, cache)
        cache.batch_repeat_interleave(num_generations)
        logits = logits.repeat_interleave(num_generations, 0)
        mask = layout.attention_mask.repeat_interleave(num_generations, 0)
        positions = layout.next_position.repeat_interleave(num_generations)
        processors = sampling.processors(self._never_sampled, logits.device)
        finished = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        nothing = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        all_ids, all_logprobs = [], []
        for step in range(sampling.max_new_tokens):
            logits = logits.float()
            scores = processors(nothing, logits.clone())  # type: ignore[arg-type]
            ids = draw(scores, sampling.temperature == 0, generator)
            ids = ids.masked_fill(finished, self.encoder.padding)
            logprobs = (logits / (sampling.temperature or 1.0)).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
            all_ids.append(ids)
            all_logprobs.append(logprobs.masked_fill(finished, 0.0))
            finished = finished | (ids == self.encoder.end_of_turn)
            if bool(finished.all()) or step + 1 == sampling.max_new_tokens:
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            token = PromptLayout(
                embeds=self.model.get_input_embeddings()(ids[:, None]),
                attention_mask=mask,
                position_ids=(positions + step).expand(3, -1).unsqueeze(-1),
                next_position=positions,
            )
            logits = self._forward(token, cache)
        return torch.stack(all_ids, 1), torch.stack(all_logprobs, 1)

    def _forward(self, layout: PromptLayout, cache: DynamicCache) -> Tensor:
        """Logits ``[B, V]`` after the last column, the cache extended by the layout's columns."""
        output = self.model(
            inputs_embeds=layout.embeds,
            attention_mask=layout.attention_mask,
            position_ids=layout.position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def logprobs(
        self, groups: RolloutGroups, features: list[Tensor | None], temperature: float = 1.0
    ) -> TokenScores:
        """Score completions; differentiable in the model and in the features.

        One packed row per group: the prompt once, then its G completions, which see the prompt and
        themselves but not each other. Forward and backward of the prompt are paid once per group.

        Args:
            groups: P·G completions.
            features: this model's video features of ``groups.inputs``.
            temperature: the temperature that the completions were sampled with (0 counts as 1).
        """
        num_prompts, num_generations, length = groups.completion_ids.shape
        layout = lay_out(self.model, groups.inputs, features)
        packed = pack(layout, self.model.get_input_embeddings()(groups.completion_ids))
        hidden = self.model.model(
            inputs_embeds=packed.embeds,
            attention_mask=self._attention_mask(packed.mask, packed.embeds.dtype),
            position_ids=packed.position_ids,
            use_cache=False,
        ).last_hidden_state
        # What predicts a completion: the prompt's last token its first, and each of its tokens the next.
        prompt_end = layout.embeds.shape[1] - 1
        last = hidden[:, prompt_end, None, None].expand(-1, num_generations, 1, -1)
        inner = hidden[:, prompt_end + 1 :].unflatten(1, (num_generations, length))[:, :, :-1]
        rows = torch.cat([last, inner], 2).flatten(0, 2)
        logprobs, entropy = self._head_scores(rows, groups.completion_ids.flatten(), temperature or 1.0)
        shape = (num_prompts, num_generations, length)
        return TokenScores(
            logprobs=logprobs.view(shape).masked_fill(~groups.completion_mask, 0.0),
            entropy=entropy.view(shape).masked_fill(~groups.completion_mask, 0.0),
            prompt_hidden=hidden[:, : prompt_end + 1],
        )

    def _attention_mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """A bool mask in the form that the model's attention function takes."""
        if self.model.config._attn_implementation == "sdpa":
            return mask
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(dtype).min
        )

    def _head_scores(self, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies ``[N]`` of ``ids`` after ``hidden`` ``[N, D]``; logits never all alive."""

        def scores(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            logs = (self.model.lm_head(rows).float() / temperature).log_softmax(-1)
            # The entropy is a metric, not part of the loss: no graph for it.
            entropy = -(logs.detach().exp() * logs.detach()).sum(-1)
            return logs.gather(-1, targets[:, None])[:, 0], entropy

        chunks = zip(hidden.split(HEAD_ROWS), ids.split(HEAD_ROWS), strict=True)
        if torch.is_grad_enabled() and len(hidden) > HEAD_ROWS:
            parts = [checkpoint(scores, rows, targets, use_reentrant=False) for rows, targets in chunks]
        else:
            parts = [scores(rows, targets) for rows, targets in chunks]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def teacher_groups(self, inputs: list[PromptInputs], answers: list[str]) -> RolloutGroups:
        """Given answers in the shape of a rollout with G = 1, for supervised fine-tuning."""
        rows = [torch.tensor(self.encoder.completion_ids(answer)) for answer in answers]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.encoder.padding)
        ids = ids.to(inputs[0]["input_ids"].device)
        return self._groups(inputs, 1, ids, torch.zeros(ids.shape, dtype=torch.float32, device=ids.device))

    def _groups(
        self, inputs: list[PromptInputs], num_generations: int, ids: Tensor, logprobs: Tensor
    ) -> RolloutGroups:
        """Wrap rows ``[P·G, C]`` that are padded after their end-of-turn."""
        ends = (ids == self.encoder.end_of_turn).long()
        mask = (ends.cumsum(1) - ends) == 0
        texts = [self.encoder.decode(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]
        shape = (len(inputs), num_generations, ids.shape[1])
        return RolloutGroups(
            inputs=inputs,
            completion_ids=ids.view(shape),
            completion_mask=mask.view(shape),
            logprobs=logprobs.view(shape),
            truncated=(ends.sum(1) == 0).view(shape[:2]),
            texts=[texts[i : i + num_generations] for i in range(0, len(texts), num_generations)],
        )

    def frozen_copy(self) -> VideoPolicy:
        """The policy as it is now, without gradients: the reference."""
        reference = VideoPolicy(copy.deepcopy(self.model), self.encoder)
        return reference.requires_grad_(False).eval()

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a Hugging Face folder that the Auto classes load, whole or not at all.

        Args:
            folder: an older one there is replaced.
            dtype: floating type of the written weights, which needs a second copy in memory; None for
                that of the model.
        """
        model = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        target = Path(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        aside = scratch.with_name(f"{scratch.name}-old")
        try:
            model.save_pretrained(scratch)
            self.encoder.save(str(scratch))
            _readable(scratch)
            if target.exists():
                # Aside, not away: a removal takes time in which there would be no model at all.
                target.rename(aside)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if target.exists():
                shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while: in training mode gradient checkpointing drops the cache."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def _readable(folder: Path) -> None:
    """Give a scratch folder and its files the permissions that the user's umask means them to have."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)
