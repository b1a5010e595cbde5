"""The policy: a video language model that rolls out completions and scores them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from vcr1.policy.attention.flex import takes_flex
from vcr1.policy.attention.forms import SPLIT_FROM, check_forms
from vcr1.policy.attention.grouped import take_layouts
from vcr1.policy.attention.packing import forward_packed, pack_dense, pack_split
from vcr1.policy.budget import chosen_tokens, extremes, plan_passes
from vcr1.policy.features.cache import FeatureCache
from vcr1.policy.generation.compiled import Steps
from vcr1.policy.generation.engine import decode_prompts, decode_within_memory
from vcr1.policy.generation.groups import completed_groups, taught_groups
from vcr1.policy.generation.rollout import SpecialTokens
from vcr1.policy.generation.sampling import Sampling, chances
from vcr1.policy.memory import halved
from vcr1.policy.prompts.encoding import PromptEncoder
from vcr1.policy.prompts.layout import PromptLayout, layout_prompts, video_features
from vcr1.policy.scoring import TokenScores, gather_scores, token_scores
from vcr1.policy.weights.lora import is_adapted
from vcr1.policy.weights.saving import gathered_copy, save_folder
from vcr1.policy.weights.sharding import Sharding, is_sharded
from vcr1.records import PromptInputs, RolloutGroups, to_device


class VideoPolicy(nn.Module):
    """A Hugging Face video language model together with its encoder.

    Args:
        model: a model of one of the families in :mod:`vcr1.policy.families`, for conditional generation.
        encoder: the encoder of the same model.
        attention_form: how training passes lay groups out: ``dense``, in padded rows under one mask,
            ``split``, in one row without padding, or ``auto``, whichever is the faster for the size.
        max_tokens: prompts and completions in a forward of a training pass, more go through one after the
            other; None for no limit.
        feature_cache: where video features are kept, if at all; the vision tower must be frozen.
        tree_attention: what computes the split form, ``sdpa``, ``flex`` (torch's flex attention, compiled),
            or ``auto``, flex on a GPU where it proves to work.

    Attributes:
        shares_prompts: whether a group's prompt is computed once.
        sharding: how the weights are spread over ranks, if they are.
        max_rows: completions decoded at once; None for no bound, until there was no memory for them.
        steps: the forms of a decode step.
        never_sampled: ids that no completion may hold.

    Raises:
        UserError: an unknown form or attention, a limit below 1, or a cache for a tower that is trained.
    """

    shares_prompts = True

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: PromptEncoder,
        attention_form: str = "auto",
        max_tokens: int | None = None,
        feature_cache: FeatureCache | None = None,
        tree_attention: str = "auto",
    ) -> None:
        super().__init__()
        check_forms(attention_form, tree_attention, max_tokens)
        self.model: Any = model
        self.encoder = encoder
        self.attention_form = attention_form
        self.max_tokens = max_tokens
        self.feature_cache = feature_cache
        self.tree_attention = tree_attention
        self.max_rows: int | None = None
        self.steps = Steps()
        self.sharding: Sharding | None = None
        if feature_cache is not None:
            feature_cache.check(model)
        self.never_sampled = encoder.never_sampled(self.model.config.get_text_config().vocab_size)
        self._prepare()

    def _prepare(self) -> None:
        """Let groups share their prompt in the model's attention."""
        take_layouts(self.model)

    @property
    def special_tokens(self) -> SpecialTokens:
        """Return the ids that decoding ends with, fills up with, and never draws."""
        return SpecialTokens(self.encoder.stops, self.encoder.padding, self.never_sampled)

    @property
    def is_adapted(self) -> bool:
        """Return True where adapters are trained in the place of the weights."""
        return is_adapted(self.model)

    @property
    def vision_is_frozen(self) -> bool:
        """Return whether no parameter of the vision tower is trained."""
        return not any(p.requires_grad for p in self.encoder.family.tower(self.model).parameters())

    def vision(self, inputs: list[PromptInputs]) -> list[Tensor | None]:
        """Encode the prompts' videos; see :func:`~vcr1.policy.prompts.layout.video_features`."""
        if self.feature_cache is not None:
            return self.feature_cache.features(self.model, inputs)
        if self.sharding is None or any("video_grid_thw" in item for item in inputs):
            return video_features(self.model, inputs)
        # Other ranks may have videos, and none can compute a block alone: the tower joins in, unused.
        (feature,) = video_features(self.model, self.dummy_inputs())
        assert feature is not None
        return [feature[:0].clone()] * len(inputs)

    @torch.no_grad()
    def rollout(
        self,
        inputs: list[PromptInputs],
        features: list[Tensor | None],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> RolloutGroups:
        """Sample G completions per prompt. The group shares the vision pass and one prefill.

        Args:
            inputs: P prompt inputs on the model's device.
            features: their video features; the graph behind them is not touched.
            num_generations: G.
            sampling: decoding parameters.
            seeds: of each prompt's completions; None draws them from the global randomness.
        """
        chance = chances(seeds, len(inputs), num_generations, sampling)
        decode = partial(self._decode, inputs, features, num_generations, sampling, chance)
        ids, logprobs = decode_within_memory(self, len(chance), sampling, decode)
        return completed_groups(self.encoder, inputs, num_generations, ids, logprobs)

    def _decode(self, *prompts: Any) -> tuple[Tensor, Tensor]:
        """Decode as this family can; see :func:`~vcr1.policy.generation.engine.decode_prompts`."""
        return decode_prompts(self, *prompts)

    def logprobs(
        self, groups: RolloutGroups, features: list[Tensor | None], temperature: float = 1.0
    ) -> TokenScores:
        """Score completions; differentiable in the model and in the features.

        Each prompt is computed once, forward and backward; its G completions see it and themselves, but not
        each other.

        With ``max_tokens`` set and exceeded, in several passes with the same gradient, whose activations are
        computed a second time in the backward pass.

        Args:
            groups: P·G completions.
            features: this model's video features of ``groups.inputs``.
            temperature: the temperature that the completions were sampled with (0 counts as 1).
        """
        # Known before a checkpoint begins: it must not take a trial for a part of the forward.
        device = groups.completion_ids.device
        flex = self.attention_form != "dense" and takes_flex(self.tree_attention, self.model, device)
        try:
            return self._score_in_passes(groups, features, temperature, flex)
        except torch.OutOfMemoryError:
            if self.sharding is not None:
                raise
        self.halve_token_budget(groups)
        return self._score_in_passes(groups, features, temperature, flex)

    def halve_token_budget(self, groups: RolloutGroups) -> None:
        """Lower ``max_tokens`` to half of what a pass over these groups computes at most.

        Raises:
            UserError: a pass has one completion alone.
        """
        largest, alone = extremes(*self._costs(groups), self.max_tokens)
        self.max_tokens = halved(largest, alone, "tokens in a training pass")

    def _score_in_passes(
        self, groups: RolloutGroups, features: list[Tensor | None], temperature: float, flex: bool
    ) -> TokenScores:
        """Score in as many passes as ``max_tokens`` asks for."""
        passes = plan_passes(*self._costs(groups), self.max_tokens)
        count = len(passes) if self.sharding is None else self.sharding.max_over_ranks(len(passes))
        if count == 1:
            return self._score(groups, features, temperature, flex)
        parts = []
        for rows, chosen in chosen_tokens(passes, count, groups.completion_mask):
            own = [features[row] for row in rows]
            # What a pass keeps for its backward is computed again there: one pass is in memory at a time.
            part = checkpoint(
                self._score, groups.part(rows), own, temperature, flex, chosen, use_reentrant=False
            )
            parts.append((rows, part))
        return gather_scores(len(groups.inputs), parts)

    def _costs(self, groups: RolloutGroups) -> tuple[list[int], list[list[int]]]:
        """Return tokens that a pass computes for each of P prompts, and for each of their G completions."""
        return [item["input_ids"].shape[1] for item in groups.inputs], groups.lengths.tolist()

    def _score(
        self,
        groups: RolloutGroups,
        features: list[Tensor | None],
        temperature: float,
        flex: bool,
        chosen: Tensor | None = None,
    ) -> TokenScores:
        """Score in one forward: all tokens, or those ``chosen`` ``[P, G, C]``, the others left out.

        ``flex``: what the split form is computed by.
        """
        ids = groups.completion_ids
        mask = groups.completion_mask if chosen is None else chosen
        layout = layout_prompts(self.model, groups.inputs, features)
        embeds = self.model.get_input_embeddings()(ids)
        # The dense form computes padding, and would compute what is left out.
        if chosen is not None or self.splits(layout, ids[0].numel()):
            packed = pack_split(layout, embeds, mask, flex)
        else:
            packed = pack_dense(layout, embeds)
        hidden = forward_packed(self.model, packed)
        return token_scores(self.model.lm_head, packed, hidden, ids, mask, temperature or 1.0)

    def splits(self, layout: PromptLayout, completion_tokens: int) -> bool:
        """Return whether prompts with this many completion tokens take the split form."""
        if self.attention_form == "auto":
            return layout.embeds.shape[1] + completion_tokens >= SPLIT_FROM
        return self.attention_form == "split"

    def teacher_groups(self, inputs: list[PromptInputs], answers: list[str]) -> RolloutGroups:
        """Return given answers in the shape of a rollout with G = 1, for supervised fine-tuning."""
        return taught_groups(self.encoder, inputs, answers)

    def dummy_inputs(self, video: bool = True) -> list[PromptInputs]:
        """Return the smallest prompt: what a rank computes that has nothing to compute, see `sharding`."""
        return [to_device(self.encoder.smallest(video), next(self.model.buffers()).device)]

    def frozen_copy(self) -> VideoPolicy:
        """Return the policy as it is now, without gradients: the reference."""
        model, forms = copy.deepcopy(self.model), (self.attention_form, self.max_tokens)
        reference = type(self)(model, self.encoder, *forms, tree_attention=self.tree_attention)
        return reference.requires_grad_(False).eval()

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a Hugging Face folder that the Auto classes load, whole or not at all; adapters are merged.

        All ranks call it where they share the weights; the first one writes.

        Args:
            folder: an older one there is replaced.
            dtype: floating type of the written weights; None for that of the model.
        """
        model = gathered_copy(self.model) if is_sharded(self) else self.model
        if model is not None:
            save_folder(model, self.encoder, Path(folder), dtype)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while: in training mode gradient checkpointing drops the cache."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)
