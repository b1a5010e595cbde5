"""Scores of completions, against one plain forward of Hugging Face's model per completion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_cases import (
    SHORT,
    calls_of,
    gradients,
    largest_relative_error,
    make_clip,
    plain_groups,
    plain_logits,
    question,
    roll,
)
from torch import Tensor

from vcr1.policy import TokenScores, VideoPolicy, load_policy
from vcr1.records import PromptInputs, RolloutGroups

TEMPERATURE = 2.0
"""Flat enough that completions differ in their tokens and in their lengths."""


@pytest.fixture
def groups(policy: VideoPolicy, three: list[PromptInputs], text_only: PromptInputs) -> RolloutGroups:
    """Four prompts of different lengths, one without video, three ragged completions each."""
    torch.manual_seed(2)
    groups = roll(policy, [*three, text_only], 3, max_new_tokens=16, temperature=TEMPERATURE)
    # The embedded model seldom stops early at this temperature: some completions are cut by hand.
    end, padding = policy.encoder.end_of_turn, policy.encoder.padding
    for row, column, length in ((0, 1, 5), (1, 0, 9), (2, 2, 1), (3, 1, 12)):
        ids, mask = groups.completion_ids[row, column], groups.completion_mask[row, column]
        ids[length - 1], ids[length:], mask[length:] = end, padding, False
        groups.logprobs[row, column, length:] = 0
    assert len(set(groups.lengths.flatten().tolist())) >= 5
    return groups


def score(policy: VideoPolicy, groups: RolloutGroups, temperature: float = 1.0) -> TokenScores:
    return policy.logprobs(groups, policy.vision(groups.inputs), temperature)


def weights(groups: RolloutGroups) -> Tensor:
    """A loss's weight per token, different for each."""
    return torch.randn(groups.completion_mask.shape, generator=torch.Generator().manual_seed(5))


def scores_and_gradients(policy: VideoPolicy, groups: RolloutGroups) -> tuple[TokenScores, dict[str, Tensor]]:
    scores = score(policy, groups)
    return scores, gradients(policy.model, (scores.logprobs * weights(groups)).sum())


# ------------------------------------------------------------------------------ equal to a plain forward


@pytest.mark.parametrize("temperature", [1.0, 1.5, TEMPERATURE])
@torch.no_grad()
def test_scores_are_those_of_plain_forwards(
    policy: VideoPolicy, groups: RolloutGroups, temperature: float
) -> None:
    scores = score(policy, groups, temperature)
    assert scores.logprobs.dtype == scores.entropy.dtype == torch.float32
    count = 0
    for place, logprobs, entropy in plain_groups(policy.model, groups, temperature):
        mask = groups.completion_mask[place]
        assert (scores.logprobs[place][mask] - logprobs).abs().max() <= 1e-5
        assert (scores.entropy[place][mask] - entropy).abs().max() <= 1e-5
        assert scores.logprobs[place][~mask].tolist() == [0.0] * int((~mask).sum())
        assert scores.entropy[place][~mask].tolist() == [0.0] * int((~mask).sum())
        count += 1
    assert count == 12


@torch.no_grad()
def test_temperature_zero_scores_as_one(policy: VideoPolicy, groups: RolloutGroups) -> None:
    assert torch.equal(score(policy, groups, 0.0).logprobs, score(policy, groups, 1.0).logprobs)


@torch.no_grad()
def test_a_clip_that_outlasts_its_question_scores_as_plain_forwards(policy: VideoPolicy, clips: Path) -> None:
    inputs = policy.encoder(SHORT, make_clip(clips, 30.0))
    groups = roll(policy, [inputs], 2, max_new_tokens=8, temperature=TEMPERATURE)
    scores = score(policy, groups)
    for place, logprobs, _ in plain_groups(policy.model, groups):
        assert (scores.logprobs[place][: len(logprobs)] - logprobs).abs().max() <= 1e-5


@torch.no_grad()
def test_in_double_precision_nothing_is_left(policy: VideoPolicy, groups: RolloutGroups) -> None:
    # Scores are rounded to float32, so the hidden states are compared that the head turns into them.
    # Float64's own 1e-15 does not show there, since the model's norms round to float32 within.
    policy.double()
    head: list[Tensor] = []
    policy.model.lm_head.register_forward_pre_hook(lambda _module, args: head.append(args[0]))
    scores = score(policy, groups)
    found = torch.cat(head).view(*groups.completion_mask.shape, -1)
    assert found.dtype == torch.float64
    for row, inputs in enumerate(groups.inputs):
        for column in range(3):
            kept = groups.completion_ids[row, column][groups.completion_mask[row, column]]
            head.clear()
            logits = plain_logits(policy.model, inputs, kept)
            expected = head[0][0, -len(kept) - 1 : -1]
            error = (found[row, column, : len(kept)] - expected).abs().max() / expected.abs().max()
            assert error <= 1e-9
            logprobs = logits.log_softmax(-1).gather(-1, kept[:, None])[:, 0]
            rounding = 2e-6  # of float32 around 10
            assert (scores.logprobs[row, column, : len(kept)] - logprobs).abs().max() <= rounding


def test_gradients_are_those_of_plain_forwards(policy: VideoPolicy, groups: RolloutGroups) -> None:
    _, found = scores_and_gradients(policy, groups)
    loss = torch.zeros(())
    for place, logprobs, _ in plain_groups(policy.model, groups):
        loss = loss + (logprobs * weights(groups)[place][: len(logprobs)]).sum()
    expected = gradients(policy.model, loss)
    assert len(expected) == len(list(policy.parameters()))  # the vision tower's too
    assert largest_relative_error(found, expected) <= 1e-5


def test_the_entropy_takes_no_part_in_the_loss(policy: VideoPolicy, groups: RolloutGroups) -> None:
    scores = score(policy, groups)
    assert scores.logprobs.requires_grad
    assert not scores.entropy.requires_grad


# -------------------------------------------------------------------------------- equal to the sampler's


@pytest.mark.parametrize("temperature", [0.0, 1.0, TEMPERATURE])
@torch.no_grad()
def test_the_sampler_and_the_policy_agree(
    policy: VideoPolicy, three: list[PromptInputs], text_only: PromptInputs, temperature: float
) -> None:
    torch.manual_seed(4)
    groups = roll(policy, [*three, text_only], 3, max_new_tokens=24, temperature=temperature)
    scores = score(policy, groups, temperature)
    # Two ways to add up in float32: a few units in the last place of log-probs down to -10.
    assert (scores.logprobs - groups.logprobs).abs().max() <= 2e-5
    assert float(groups.logprobs.min()) < -0.1


@torch.no_grad()
def test_the_sampler_reports_the_whole_distribution(policy: VideoPolicy, three: list[PromptInputs]) -> None:
    # Of the model, not of the few candidates that were left to draw from.
    groups = roll(policy, three, 3, max_new_tokens=12, temperature=TEMPERATURE, top_k=2)
    scores = score(policy, groups, TEMPERATURE)
    assert (scores.logprobs - groups.logprobs).abs().max() <= 1e-5


def test_the_reference_scores_like_the_policy_it_was_copied_from(
    policy: VideoPolicy, groups: RolloutGroups
) -> None:
    reference = policy.train().frozen_copy()
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert not any(module.training for module in reference.modules())
    assert policy.training
    before = score(reference, groups)
    assert torch.equal(before.logprobs, score(policy, groups).logprobs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    assert torch.equal(score(reference, groups).logprobs, before.logprobs)
    assert not torch.allclose(score(policy, groups).logprobs, before.logprobs, atol=1e-3)
    assert all(parameter.requires_grad for parameter in policy.parameters())


# --------------------------------------------------------------------- what must not change the scores


@torch.no_grad()
def test_completions_of_a_group_do_not_see_each_other(policy: VideoPolicy, groups: RolloutGroups) -> None:
    before = score(policy, groups).logprobs
    ids = groups.completion_ids.clone()
    ids[:, 1] = 42
    changed = replace(groups, completion_ids=ids, completion_mask=torch.ones_like(groups.completion_mask))
    after = score(policy, changed).logprobs
    for column in (0, 2):
        mask = groups.completion_mask[:, column]
        assert (before[:, column] - after[:, column])[mask].abs().max() <= 1e-5
    assert (before[:, 1] - after[:, 1]).abs().max() > 1


@torch.no_grad()
def test_padding_does_not_matter(policy: VideoPolicy, groups: RolloutGroups) -> None:
    before = score(policy, groups)
    ids = groups.completion_ids.masked_fill(~groups.completion_mask, 42)
    after = score(policy, replace(groups, completion_ids=ids))
    assert torch.equal(before.logprobs, after.logprobs)
    assert torch.equal(before.entropy, after.entropy)


@torch.no_grad()
def test_each_group_scores_as_it_does_alone(policy: VideoPolicy, groups: RolloutGroups) -> None:
    together = score(policy, groups)
    for row in range(4):
        parts = {
            name: getattr(groups, name)[row : row + 1]
            for name in ("inputs", "completion_ids", "completion_mask", "logprobs", "truncated", "texts")
        }
        alone = score(policy, RolloutGroups(**parts))
        assert (alone.logprobs - together.logprobs[row]).abs().max() <= 1e-5


@torch.no_grad()
def test_the_video_is_seen_and_each_prompt_has_its_own(
    policy: VideoPolicy, three: list[PromptInputs]
) -> None:
    groups = roll(policy, three, 2, max_new_tokens=12, temperature=TEMPERATURE)
    features = policy.vision(three)
    own = policy.logprobs(groups, features).logprobs
    assert [feature.shape[0] for feature in features if feature is not None] == [4, 8, 6]
    blank = [torch.zeros_like(features[0]), *features[1:]]  # type: ignore[arg-type, list-item]
    without = policy.logprobs(groups, blank).logprobs
    assert (own[0] - without[0]).abs().max() > 1e-2
    assert torch.equal(own[1:], without[1:])


# ------------------------------------------------------------------------------------ memory for compute


def test_checkpointed_training_gives_the_same_scores_and_gradients(
    policy: VideoPolicy, groups: RolloutGroups
) -> None:
    checkpointed = load_policy("builtin:tiny", dtype="float32", gradient_checkpointing=True).train()
    passes = {}
    results = {}
    for name, model in (("kept", policy.train()), ("recomputed", checkpointed)):
        layer, block = model.model.model.language_model.layers[1], model.model.model.visual.blocks[1]
        # Checkpointing recomputes what lies inside a layer, without its hooks.
        with calls_of(layer.mlp) as layers, calls_of(block.mlp) as blocks:
            results[name] = scores_and_gradients(model, groups)
        passes[name] = (len(layers), len(blocks))
    assert passes["kept"] == (1, 1)
    assert passes["recomputed"] == (2, 2)  # checkpointing was on indeed
    (kept, expected), (recomputed, found) = results["kept"], results["recomputed"]
    assert torch.equal(recomputed.logprobs, kept.logprobs)
    assert largest_relative_error(found, expected) <= 1e-6


def test_a_chunked_head_gives_the_same_scores_and_gradients(
    policy: VideoPolicy, groups: RolloutGroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = scores_and_gradients(policy, groups)
    monkeypatch.setattr("vcr1.policy.scoring.HEAD_ROWS", 50)
    with calls_of(policy.model.lm_head) as rows:
        chunked, found = scores_and_gradients(policy, groups)
    # 4 · 3 · 16 = 192 rows in chunks, once forward and once more in the backward pass.
    assert sorted(shape[0] for shape in rows) == [42, 42] + [50] * 6
    assert (chunked.logprobs - whole.logprobs).abs().max() <= 1e-6
    assert (chunked.entropy - whole.entropy).abs().max() <= 1e-6
    assert largest_relative_error(found, expected) <= 1e-6
    with calls_of(policy.model.lm_head) as rows, torch.no_grad():
        chunked = score(policy, groups)
    assert [shape[0] for shape in rows] == [50, 50, 50, 42]
    assert (chunked.logprobs - whole.logprobs).abs().max() <= 1e-6


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_frozen_part_gets_no_gradient(groups: RolloutGroups, part: str) -> None:
    policy = load_policy("builtin:tiny", dtype="float32", freeze=[part]).train()
    assert policy.vision_is_frozen is (part == "vision")
    inside: dict[str, Callable[[str], bool]] = {
        "vision": lambda name: name.startswith("model.visual."),
        # The head is tied to the embeddings and so frozen with them.
        "language": lambda name: name.startswith("model.language_model."),
    }
    _, found = scores_and_gradients(policy, groups)
    names = [name for name, _ in policy.model.named_parameters()]
    assert set(found) == {name for name in names if not inside[part](name)}
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_a_frozen_merger_leaves_the_tower_to_be_trained(groups: RolloutGroups) -> None:
    policy: Any = load_policy("builtin:tiny", dtype="float32", freeze=["merger"])
    assert not policy.vision_is_frozen
    _, found = scores_and_gradients(policy, groups)
    frozen = {name for name, _ in policy.model.named_parameters()} - set(found)
    assert frozen == {
        f"model.visual.merger.{name}" for name, _ in policy.model.model.visual.merger.named_parameters()
    }


def test_the_question_alone_can_be_scored(policy: VideoPolicy, text_only: PromptInputs) -> None:
    groups = policy.teacher_groups([text_only], ["red"])
    scores = policy.logprobs(groups, [None])
    scores.logprobs.sum().backward()
    for _, logprobs, _ in plain_groups(policy.model, groups):
        assert (scores.logprobs[0, 0] - logprobs).abs().max() <= 1e-5


def test_unlike_prompts_are_what_is_scored(policy: VideoPolicy, groups: RolloutGroups, clips: Path) -> None:
    # What the tests above rely on.
    assert len({item["input_ids"].shape[1] for item in groups.inputs}) == 4
    assert policy.encoder(question(), make_clip(clips, 4.0)).keys() == groups.inputs[0].keys()
