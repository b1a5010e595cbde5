"""Several questions about one video: what their prompts begin with is read once."""

from typing import Any

import pytest
import torch
from small_models import MODELS, prompts, small_policy, video_prompt
from torch import Tensor

from vcr1.policy import VideoPolicy
from vcr1.policy.generation.decoding import alike, prefill, runs_alike
from vcr1.policy.prompts.layout import PromptLayout, layout_prompts
from vcr1.records import PromptInputs

FAMILIES = sorted(MODELS)


def asked(family: str) -> list[PromptInputs]:
    """Three questions of 4, 7 and 4 words about one video, then one about another."""
    first = video_prompt(family, [3, 9], [(2, 4, 6)])
    length = first["input_ids"].shape[1]
    words = torch.tensor([[21, 22, 23, 24, 25, 26, 27]])
    questions = []
    for count, changed in ((4, False), (7, False), (4, True)):
        tail = words[:, :count].flip(1) if changed else words[:, :count]
        ids = torch.cat([first["input_ids"][:, : length - 7], tail], 1)
        types = (ids == first["input_ids"][0, first["mm_token_type_ids"][0] == 2][0]).long() * 2
        mask = torch.ones_like(ids)
        questions.append(first | {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types})
    return [*questions, prompts(family)[3]]


@torch.no_grad()
def laid_out(policy: VideoPolicy, inputs: list[PromptInputs]) -> PromptLayout:
    features = policy.vision(inputs)
    return layout_prompts(policy.model, inputs, [features[0], features[0], features[0], *features[3:]])


def read(policy: VideoPolicy, layout: PromptLayout, one_by_one: bool) -> tuple[Tensor, Any, list[int]]:
    """Logits, cache, and the tokens of each forward of the language model."""
    sizes: list[int] = []
    language = policy.model.model.language_model
    hook = language.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with torch.no_grad():
        found = prefill(policy.model, layout, one_by_one)
    hook.remove()
    return found.logits, found, sizes


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_alike_is_read_once_and_means_the_same(family: str) -> None:
    policy = small_policy(family)
    layout = laid_out(policy, asked(family))
    lengths = layout.lengths
    logits, cache, sizes = read(policy, layout, one_by_one=True)
    # The words of the first two begin alike, those of the third differ at once.
    stem = lengths[0] - 4
    assert sizes == [stem, 4, 7, 4, lengths[3]]
    expected, whole, _ = read(policy, layout, one_by_one=False)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    for row, length in enumerate(lengths):
        for ours, theirs in zip(cache.layers, whole.layers, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(
                    one[row, :, -length:], other[row, :, -length:], rtol=1e-4, atol=1e-5
                )


def test_prompts_at_other_positions_are_not_alike() -> None:
    # The same words and frames at another speed: a step in time has another position.
    policy = small_policy("qwen2_5_vl")
    first = video_prompt("qwen2_5_vl", [3, 9], [(2, 4, 6)])
    slower = first | {"second_per_grid_ts": torch.tensor([4.5])}
    with torch.no_grad():
        feature = policy.vision([first])[0]
        layout = layout_prompts(policy.model, [first, slower], [feature, feature])
    one, other = layout.alone(0), layout.alone(1)
    assert torch.equal(one.embeds, other.embeds)
    assert alike(one, one) == one.embeds.shape[1] - 1
    assert alike(one, other) == 0


def test_prompts_that_only_begin_alike_share_nothing() -> None:
    policy = small_policy("qwen2_5_vl")
    layout = laid_out(policy, asked("qwen2_5_vl"))
    rows = [layout.alone(row) for row in range(4)]
    assert [len(run) for run in runs_alike(rows)] == [3, 1]
    assert [len(run) for run in runs_alike([rows[0], rows[3], rows[1]])] == [1, 1, 1]
    changed = rows[1].embeds.clone()
    changed[0, int(rows[1].is_video[0].nonzero()[0])] += 1  # one token of the video is another
    other = PromptLayout(
        changed,
        rows[1].attention_mask,
        rows[1].position_ids,
        rows[1].next_position,
        rows[1].is_video,
        rows[1].deep_features,
    )
    assert alike(rows[0], rows[1]) > 0
    assert alike(rows[0], other) == 0
    assert alike(rows[0], rows[0]) == rows[0].embeds.shape[1] - 1  # its last token predicts
