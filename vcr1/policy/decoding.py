"""Decoding many completions of one prompt over the prompt's keys and values, which exist once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from vcr1.policy.packing import deep_inputs
from vcr1.policy.prompts import PromptLayout

BLOCK = 64
"""Columns by which the completions' keys and values grow at least."""


@dataclass(slots=True)
class SharedCache:
    """Keys and values of P prompts and of the completions in their slots, layer by layer.

    A slot holds one completion; there are S slots for each prompt. The prompts' part is only read: the S
    queries of a prompt are scored against it in one product. A layout for the attention of a step, see
    :class:`~vcr1.policy.attention.GroupLayout`.

    Attributes:
        prompts: per layer, keys and values ``[P, Hkv, L, D]``, padded on the left.
        padding: ``[P, 1, 1, L]`` bool, True at padding; None where no prompt is padded.
        own: per layer, keys and values ``[P, Hkv, S, columns, D]``, of which the first ``length`` count.
        length: tokens of each completion so far, that of the current step excluded.
    """

    prompts: list[tuple[Tensor, Tensor]]
    padding: Tensor | None
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    length: int = 0

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Attention of one new token per slot: ``[P·S, H, 1, D]`` for ``query`` of that shape.

        Keeps the token's key and value. Never drops: decoding is evaluation.
        """
        stem_keys, stem_values = self.prompts[layer]
        prompts, heads, stem, size = stem_keys.shape
        slots, repeats = len(query) // prompts, query.shape[1] // heads
        keys, values = self._extended(layer, key, value)
        # [P, Hkv, S, H / Hkv, D]: queries of a prompt and of a key's head side by side.
        query = (query * scaling).view(prompts, slots, heads, repeats, size).transpose(1, 2)
        shared = query.reshape(prompts, heads, slots * repeats, size) @ stem_keys.mT
        if self.padding is not None:
            shared = shared.masked_fill(self.padding, -torch.inf)
        scores = torch.cat([shared.view(prompts, heads, slots, repeats, stem), query @ keys.mT], -1)
        exact = torch.promote_types(scores.dtype, torch.float32)  # half precision would lose long sums
        weights = scores.softmax(-1, dtype=exact).to(value.dtype)
        seen = weights[..., :stem].reshape(prompts, heads, slots * repeats, stem) @ stem_values
        seen = seen.view(prompts, heads, slots, repeats, size) + weights[..., stem:] @ values
        return seen.transpose(1, 2).reshape(prompts * slots, heads * repeats, 1, size)

    def _extended(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put one column ``[P·S, Hkv, 1, D]`` behind a layer's own; all columns up to it."""
        prompts = len(self.prompts[layer][0])
        new = [tensor.to(value.dtype).unflatten(0, (prompts, -1)).transpose(1, 2) for tensor in (key, value)]
        if layer == len(self.own):
            columns = [tensor.new_empty(*tensor.shape[:3], BLOCK, tensor.shape[-1]) for tensor in new]
            self.own.append((columns[0], columns[1]))
        keys, values = self.own[layer]
        if self.length == keys.shape[3]:
            growth = max(BLOCK, self.length // 2)
            keys, values = (F.pad(tensor, (0, 0, 0, growth)) for tensor in (keys, values))
            self.own[layer] = keys, values
        end = self.length + 1
        keys[:, :, :, self.length : end] = new[0]
        values[:, :, :, self.length : end] = new[1]
        return keys[:, :, :, :end], values[:, :, :, :end]

    def keep(self, prompts: Tensor, slots: Tensor) -> None:
        """Drop all but some prompts and slots.

        Args:
            prompts: ``[P']`` which prompts stay.
            slots: ``[P', S']`` which of a prompt's slots stay; one may stand for several.
        """
        if len(prompts) < len(self.prompts[0][0]):
            self.prompts = [(keys[prompts], values[prompts]) for keys, values in self.prompts]
            self.padding = None if self.padding is None else self.padding[prompts]
        rows = prompts[:, None]
        for layer, pair in enumerate(self.own):
            # Two indices with a slice between them come first: [P', S', Hkv, columns, D].
            keys, values = (tensor[rows, :, slots].transpose(1, 2).contiguous() for tensor in pair)
            self.own[layer] = keys, values


def prefill(model: Any, layout: PromptLayout, one_by_one: bool) -> tuple[Tensor, SharedCache]:
    """Read the prompts.

    Args:
        model: the Hugging Face model.
        layout: P prompts.
        one_by_one: without padding and so without a mask; slower where the prompts are short.

    Returns:
        Logits ``[P, V]`` after each prompt, and the cache of the prompts.
    """
    if one_by_one and len(layout.embeds) > 1:
        parts = [prefill(model, layout.alone(row), False) for row in range(len(layout.embeds))]
        longest = layout.embeds.shape[1]
        caches = [cache.prompts for _, cache in parts]
        prompts = [(_stacked(longest, keys), _stacked(longest, values)) for keys, values in _by_layer(caches)]
        logits = torch.cat([logits for logits, _ in parts])
    else:
        cache = DynamicCache(config=model.config.get_text_config())
        hidden = _read(model, layout, cache)
        prompts = _keys_and_values(cache)
        logits = model.lm_head(hidden[:, -1])
    padding = layout.attention_mask == 0
    return logits, SharedCache(prompts, padding[:, None, None] if padding.any() else None)


def prefill_common(model: Any, layout: PromptLayout, common: int) -> tuple[Tensor, SharedCache]:
    """Read prompts that begin alike: what they have in common once, then the rest of each.

    Args:
        model: the Hugging Face model.
        layout: P prompts, with all of their video in what they have in common.
        common: tokens that all prompts begin with, at least one less than the shortest has.

    Returns:
        As :func:`prefill`. The keys and values of the common tokens are computed once, but kept P times.
    """
    prompts, longest = layout.attention_mask.shape
    cache = DynamicCache(config=model.config.get_text_config())
    _read(model, layout.beginning(common), cache)
    cache.batch_repeat_interleave(prompts)
    # The longest prompt has no padding. In another's columns behind the common ones stands the end of those
    # first, by as much as it is shorter: it is left out, as padding is.
    columns = torch.arange(longest, device=layout.attention_mask.device)
    shown = columns >= (layout.attention_mask == 0).sum(1, keepdim=True) + common
    shown[:, :common] = True
    hidden = model.model.language_model(
        inputs_embeds=layout.embeds[:, common:],
        attention_mask=shown.long(),
        position_ids=layout.position_ids[:, :, common:],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    padding = None if shown.all() else ~shown[:, None, None]
    return model.lm_head(hidden[:, -1]), SharedCache(_keys_and_values(cache), padding)


def _read(model: Any, layout: PromptLayout, cache: DynamicCache) -> Tensor:
    """Hidden states ``[P, L, D]`` of whole prompts; their keys and values go into the cache."""
    hidden: Tensor = model.model.language_model(
        inputs_embeds=layout.embeds,
        attention_mask=layout.attention_mask,
        position_ids=layout.position_ids,
        past_key_values=cache,
        use_cache=True,
        **deep_inputs(layout.is_video, layout.deep_features, layout.embeds.shape[-1]),
    ).last_hidden_state
    return hidden


def _keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """What a cache holds, by layer."""
    layers: list[Any] = list(cache.layers)
    # Under autocast the rotation leaves keys in float32; they are multiplied in half precision anyway.
    return [(layer.keys.to(layer.values.dtype), layer.values) for layer in layers]


def _by_layer(caches: list[list[tuple[Tensor, Tensor]]]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Keys and values of several prompts, gathered by layer."""
    return [
        ([keys for keys, _ in layer], [values for _, values in layer]) for layer in zip(*caches, strict=True)
    ]


def _stacked(longest: int, parts: list[Tensor]) -> Tensor:
    """Tensors ``[1, Hkv, l, D]`` as one of ``[P, Hkv, longest, D]``, with zeros on the left."""
    return torch.cat([F.pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])


def step(model: Any, cache: SharedCache, ids: Tensor, positions: Tensor) -> Tensor:
    """Logits ``[P·S, V]`` after one more token ``ids`` ``[P·S]`` at ``positions`` ``[P·S]`` in every slot."""
    hidden = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(ids[:, None]),
        position_ids=positions.expand(3, -1).unsqueeze(-1),
        use_cache=False,
        group_layout=cache,
    ).last_hidden_state
    cache.length += 1
    logits: Tensor = model.lm_head(hidden[:, -1])
    return logits
