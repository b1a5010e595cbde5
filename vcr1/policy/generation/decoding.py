"""Decoding many completions of one prompt over the prompt's keys and values, which exist once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from vcr1.policy.families import family_of
from vcr1.policy.prompts.layout import PromptLayout, deep_inputs

WIDTH = 64
"""Columns of the completions' keys and values at first; they double when they are full."""


@dataclass(slots=True)
class SharedCache:
    """Keys and values of P prompts and of the completions in their slots, layer by layer.

    A slot holds one completion; there are S slots for each prompt. The prompts' part is only read: the S
    queries of a prompt are scored against it in one product. A layout for the attention of a step, see
    :class:`~vcr1.policy.attention.grouped.GroupLayout`. All shapes are the same from step to step, so that a
    step can be compiled: :meth:`reserve`, :meth:`keep` and :meth:`enter` alone change them or move rows.

    Attributes:
        prompts: per layer, keys and values ``[P, Hkv, L, D]``, padded on the left.
        padding: ``[P, 1, 1, L]`` bool, True at padding.
        columns: ``[P]`` column of the current token of a prompt's completions: the number of those before.
        own: per layer, keys and values ``[P, Hkv, S, W, D]``; a prompt's first ``columns`` count.
    """

    prompts: list[tuple[Tensor, Tensor]]
    padding: Tensor
    columns: Tensor
    own: list[tuple[Tensor, Tensor]]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float
    ) -> Tensor:
        """Return attention of one new token per slot: ``[P·S, H, 1, D]`` for ``query`` of that shape.

        Keeps the token's key and value. Never drops: decoding is evaluation.
        """
        stem_keys, stem_values = self.prompts[layer]
        prompts, heads, stem, size = stem_keys.shape
        keys, values = self.own[layer]
        slots, repeats = keys.shape[2], query.shape[1] // heads
        places = torch.arange(prompts, device=query.device)
        for columns, new in ((keys, key), (values, value)):
            # Two indices with slices between them come first: [P, Hkv, S, D].
            columns[places, :, :, self.columns] = (
                new.to(columns.dtype).view(prompts, slots, heads, size).transpose(1, 2)
            )
        # [P, Hkv, S, H / Hkv, D]: queries of a prompt and of a key's head side by side.
        query = (query * scaling).to(keys.dtype).view(prompts, slots, heads, repeats, size).transpose(1, 2)
        shared = query.reshape(prompts, heads, slots * repeats, size) @ stem_keys.mT
        shared = shared.masked_fill(self.padding, -torch.inf)
        ahead = torch.arange(keys.shape[3], device=query.device) > self.columns[:, None]
        own = (query @ keys.mT).masked_fill(ahead[:, None, None, None], -torch.inf)
        scores = torch.cat([shared.view(prompts, heads, slots, repeats, stem), own], -1)
        exact = torch.promote_types(scores.dtype, torch.float32)  # half precision would lose long sums
        weights = scores.softmax(-1, dtype=exact).to(value.dtype)
        seen = weights[..., :stem].reshape(prompts, heads, slots * repeats, stem) @ stem_values
        seen = seen.view(prompts, heads, slots, repeats, size) + weights[..., stem:] @ values
        return seen.transpose(1, 2).reshape(prompts * slots, heads * repeats, 1, size)

    def reserve(self, columns: int) -> None:
        """Make room for so many tokens of each completion."""
        width = self.own[0][0].shape[3]
        while width < columns:
            width *= 2
        for layer, (keys, values) in enumerate(self.own):
            if (more := width - keys.shape[3]) > 0:
                self.own[layer] = F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more))

    def keep(self, places: Tensor, slots: Tensor) -> None:
        """Drop all but some prompts and slots.

        Args:
            places: ``[P']`` which prompts stay; one may stand for several.
            slots: ``[P', S']`` which of a prompt's slots stay; one may stand for several.
        """
        if len(places) < len(self.columns):
            self.prompts = [(keys[places], values[places]) for keys, values in self.prompts]
            self.padding = self.padding[places]
            self.columns = self.columns[places]
        rows = places[:, None]
        for layer, pair in enumerate(self.own):
            # Two indices with a slice between them come first: [P', S', Hkv, W, D].
            keys, values = (tensor[rows, :, slots].transpose(1, 2).contiguous() for tensor in pair)
            self.own[layer] = keys, values

    def enter(self, place: int, prompt: list[tuple[Tensor, Tensor]]) -> None:
        """Put another prompt, ``[1, Hkv, l, D]`` layer by layer, in the place of one whose slots are free."""
        length = prompt[0][0].shape[2]
        for pair, new in zip(self.prompts, prompt, strict=True):
            for columns, tensor in zip(pair, new, strict=True):
                columns[place, :, -length:] = tensor[0]
        self.padding[place] = True
        self.padding[place, ..., -length:] = False
        self.columns[place] = 0


@dataclass(frozen=True, slots=True)
class ReadPrompts:
    """What the model has made of P prompts.

    Attributes:
        logits: ``[P, V]`` after each prompt.
        layers: per layer, keys and values ``[P, Hkv, L, D]``, padded on the left.
        padding: ``[P, L]`` bool, True at padding.
        next_position: ``[P]`` the position of a completion's first token.
    """

    logits: Tensor
    layers: list[tuple[Tensor, Tensor]]
    padding: Tensor
    next_position: Tensor

    def cache(self, slots: int, longest: int) -> SharedCache:
        """Return a cache with S slots for each prompt, in which there is room for longer prompts.

        Args:
            slots: S.
            longest: tokens of the longest prompt that may come.
        """
        pad = (0, 0, longest - self.padding.shape[1], 0)
        layers = self.layers if pad[2] == 0 else [(F.pad(k, pad), F.pad(v, pad)) for k, v in self.layers]
        own = [
            tuple(part.new_zeros(len(part), part.shape[1], slots, WIDTH, part.shape[-1]) for part in layer)
            for layer in layers
        ]
        padding = F.pad(self.padding, (pad[2], 0), value=True)[:, None, None]
        columns = torch.zeros(len(self.padding), dtype=torch.long, device=padding.device)
        return SharedCache(layers, padding, columns, own)  # type: ignore[arg-type]

    def alone(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values ``[1, Hkv, l, D]`` of one prompt without its padding."""
        start = int(self.padding[row].sum())
        return [
            (keys[row : row + 1, :, start:], values[row : row + 1, :, start:]) for keys, values in self.layers
        ]


def prefill(model: Any, layout: PromptLayout, one_by_one: bool) -> ReadPrompts:
    """Read the prompts.

    Args:
        model: the Hugging Face model.
        layout: P prompts.
        one_by_one: without padding and so without a mask; slower where the prompts are short. Prompts that
            follow one another and begin alike, their video included, share the reading of what is alike.

    Returns:
        What decoding goes on from.
    """
    padding = layout.attention_mask == 0
    if one_by_one and len(layout.embeds) > 1:
        rows = [layout.alone(row) for row in range(len(layout.embeds))]
        parts = [part for run in runs_alike(rows) for part in _read_run(model, run)]
        longest = layout.embeds.shape[1]
        caches = [layers for _, layers in parts]
        layers = [(_stacked(longest, keys), _stacked(longest, values)) for keys, values in _by_layer(caches)]
        logits = torch.cat([logits for logits, _ in parts])
    else:
        cache = DynamicCache(config=model.config.get_text_config())
        logits = model.lm_head(_read(model, layout, cache, slice(None)))
        layers = _keys_and_values(cache)
    return ReadPrompts(logits, layers, padding, layout.next_position)


def _read(model: Any, layout: PromptLayout, cache: DynamicCache, columns: slice) -> Tensor:
    """Read columns of prompts behind those that the cache holds; hidden states ``[P, D]`` of the last one."""
    is_video = layout.is_video[:, columns]
    deep = deep_inputs(model, is_video, layout.deep_features) if is_video.any() else {}
    states: Tensor = (
        family_of(model)
        .language(model)(
            inputs_embeds=layout.embeds[:, columns],
            attention_mask=layout.attention_mask[:, : columns.stop],
            position_ids=layout.position_ids[:, :, columns],
            past_key_values=cache,
            use_cache=True,
            **deep,
        )
        .last_hidden_state
    )
    return states[:, -1]


def _keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Layer by layer, ``[P, Hkv, L, D]``."""
    layers: list[Any] = list(cache.layers)
    # Under autocast the rotation leaves keys in float32; they are multiplied in half precision anyway.
    return [(layer.keys.to(layer.values.dtype), layer.values) for layer in layers]


def _read_run(model: Any, rows: list[PromptLayout]) -> list[tuple[Tensor, list[tuple[Tensor, Tensor]]]]:
    """Return logits ``[1, V]``, and keys and values, of single prompts that begin alike."""
    cache = DynamicCache(config=model.config.get_text_config())
    shared = min((alike(rows[0], row) for row in rows[1:]), default=0)
    if shared:
        _read(model, rows[0], cache, slice(0, shared))
    parts = []
    for row in rows:
        hidden = _read(model, row, cache, slice(shared, row.embeds.shape[1]))
        parts.append((model.lm_head(hidden), _keys_and_values(cache)))
        if shared:
            # What was taken stays as it is: a forward appends by copying.
            cache.crop(shared - row.embeds.shape[1])
    return parts


def runs_alike(rows: list[PromptLayout]) -> list[list[PromptLayout]]:
    """Single prompts, cut where one does not begin as the first of its run does, its video included."""
    runs: list[list[PromptLayout]] = []
    for row in rows:
        if runs and alike(runs[-1][0], row):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def alike(first: PromptLayout, second: PromptLayout) -> int:
    """Tokens with which two single prompts begin alike; 0 where a video reaches beyond them, or is none.

    The last token of neither is among them: something must be left to predict from.
    """
    ends = [int(row.is_video[0].nonzero().amax()) + 1 for row in (first, second) if row.is_video.any()]
    size = min(first.embeds.shape[1], second.embeds.shape[1]) - 1
    if len(ends) < 2 or max(ends) > size or first.deep_features[0].shape != second.deep_features[0].shape:
        return 0
    same = (first.embeds[0, :size] == second.embeds[0, :size]).all(-1)
    same &= (first.position_ids[:, 0, :size] == second.position_ids[:, 0, :size]).all(0)
    length = int(same.long().cumprod(0).sum())
    is_one = length >= max(ends) and torch.equal(first.deep_features[0], second.deep_features[0])
    return length if is_one else 0


def _by_layer(caches: list[list[tuple[Tensor, Tensor]]]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Return keys and values of several prompts, gathered by layer."""
    return [
        ([keys for keys, _ in layer], [values for _, values in layer]) for layer in zip(*caches, strict=True)
    ]


def _stacked(longest: int, parts: list[Tensor]) -> Tensor:
    """Return tensors ``[1, Hkv, l, D]`` as one of ``[P, Hkv, longest, D]``, with zeros on the left."""
    return torch.cat([F.pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])


def step(model: Any, cache: SharedCache, ids: Tensor, positions: Tensor) -> Tensor:
    """Logits ``[P·S, V]`` after one more token ``ids`` ``[P·S]`` at ``positions`` ``[P·S]`` in every slot.

    The cache's ``columns`` move on with the next token that is drawn, not here.
    """
    hidden = (
        family_of(model)
        .language(model)(
            inputs_embeds=model.get_input_embeddings()(ids[:, None]),
            position_ids=positions.expand(3, -1).unsqueeze(-1),
            use_cache=False,
            group_layout=cache,
        )
        .last_hidden_state
    )
    logits: Tensor = model.lm_head(hidden[:, -1])
    return logits
