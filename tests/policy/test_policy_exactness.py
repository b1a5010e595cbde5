"""Shared prompts against Hugging Face's plain forward of every completion, family by family."""

from typing import Any

import pytest
import torch
from policy_cases import calls_of, gradients, largest_relative_error, plain_groups
from small_models import MODELS, expanded_rollout, prompts, ragged, small_policy, video_prompt
from torch import Tensor

from vcr1.errors import UserError
from vcr1.policy import Sampling, VideoPolicy, load_encoder
from vcr1.records import PromptInputs, RolloutGroups

LENGTHS = [[5, 1, 7], [3, 7, 2], [6, 6, 1], [1, 2, 4]]
FORMS = ("dense", "split")


def weights(groups: RolloutGroups) -> Tensor:
    """A loss's weight per token, different for each."""
    return torch.randn(groups.completion_mask.shape, generator=torch.Generator().manual_seed(5))


def scores_and_gradients(policy: VideoPolicy, groups: RolloutGroups) -> tuple[Tensor, dict[str, Tensor]]:
    scores = policy.logprobs(groups, policy.vision(groups.inputs)).logprobs
    return scores.detach(), gradients(policy.model, (scores * weights(groups)).sum())


def plain_scores_and_gradients(
    policy: VideoPolicy, groups: RolloutGroups
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same by one plain forward per completion."""
    expected = torch.zeros(groups.completion_mask.shape, dtype=policy.model.dtype)
    loss = torch.zeros((), dtype=policy.model.dtype)
    for place, logprobs, _ in plain_groups(policy.model, groups):
        policy.model.model.rope_deltas = None  # what the model keeps of another prompt
        expected[place][: len(logprobs)] = logprobs.detach()
        loss = loss + (logprobs * weights(groups)[place][: len(logprobs)]).sum()
    return expected, gradients(policy.model, loss)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", MODELS)
def test_scores_and_gradients_are_those_of_plain_forwards(
    family: str, form: str, checkpointing: bool
) -> None:
    policy = small_policy(family, form)
    groups = ragged(prompts(family), LENGTHS)
    expected, slopes = plain_scores_and_gradients(policy, groups)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.train()
    layer = policy.model.model.language_model.layers[1]
    with calls_of(layer.mlp) as passes:
        found, own_slopes = scores_and_gradients(policy, groups)
    assert len(passes) == (2 if checkpointing else 1)  # once for all groups; once more where it is recomputed
    tokens = passes[0][0] * passes[0][1]
    assert (tokens == sum(item["input_ids"].shape[1] for item in groups.inputs) + 45) is (form == "split")
    assert float(expected.min()) < -3
    assert (found - expected).abs().max() <= 1e-5
    assert largest_relative_error(own_slopes, slopes) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_in_double_precision_nothing_is_left(family: str, form: str) -> None:
    policy = small_policy(family, form, torch.float64)
    groups = ragged(prompts(family, torch.float64), LENGTHS)
    scores = policy.logprobs(groups, policy.vision(groups.inputs)).logprobs
    assert scores.dtype == torch.float64
    for place, logprobs, _ in plain_groups(policy.model, groups):
        policy.model.model.rope_deltas = None
        assert (scores[place][: len(logprobs)] - logprobs).abs().max() <= 1e-10


@pytest.mark.parametrize("mixed", [False, True], ids=["bf16", "bf16-mixed"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_in_half_precision_sharing_costs_no_more_than_the_type_does(
    family: str, form: str, mixed: bool
) -> None:
    exact = small_policy(family, form)
    half = small_policy(family, form, torch.float32 if mixed else torch.bfloat16)
    groups = ragged(prompts(family), LENGTHS)
    ours, theirs = [], []
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        scores = half.logprobs(groups, half.vision(groups.inputs)).logprobs
        found = {}
        for place, logprobs, _ in plain_groups(half.model, groups):
            half.model.model.rope_deltas = None
            found[place] = logprobs.float()
    for place, logprobs, _ in plain_groups(exact.model, groups):
        exact.model.model.rope_deltas = None
        ours.append(scores[place][: len(logprobs)] - logprobs)
        theirs.append(found[place] - logprobs)
    error, plain = torch.cat(ours).abs(), torch.cat(theirs).abs()
    assert plain.mean() > 1e-3  # it does cost something
    assert error.mean() <= 1.5 * plain.mean()
    assert error.max() <= 2 * plain.max()


@pytest.mark.parametrize("form", FORMS)
def test_a_group_of_one_is_a_plain_forward(form: str) -> None:
    policy = small_policy("qwen2_5_vl", form)
    groups = ragged(prompts("qwen2_5_vl"), [[3], [1], [6], [4]])
    expected, slopes = plain_scores_and_gradients(policy, groups)
    found, own_slopes = scores_and_gradients(policy, groups)
    assert (found - expected).abs().max() <= 1e-5
    assert largest_relative_error(own_slopes, slopes) <= 1e-5


def test_both_forms_hand_over_the_same() -> None:
    policy = small_policy("qwen2_5_vl", "dense")
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    features = policy.vision(groups.inputs)
    dense = policy.logprobs(groups, features)
    policy.attention_form = "split"
    split = policy.logprobs(groups, features)
    longest = max(item["input_ids"].shape[1] for item in groups.inputs)
    assert dense.prompt_hidden.shape == split.prompt_hidden.shape == (4, longest, 48)
    assert (dense.prompt_hidden - split.prompt_hidden).abs().max() <= 1e-5
    assert (dense.entropy - split.entropy).abs().max() <= 1e-5
    for row, item in enumerate(groups.inputs):
        pad = longest - item["input_ids"].shape[1]
        assert not split.prompt_hidden[row, :pad].any()
        assert split.prompt_hidden[row, pad:].any(-1).all()


@pytest.mark.parametrize(("prompt", "form"), [(200, "dense"), (600, "split")])
def test_auto_takes_the_form_that_suits_the_size(prompt: int, form: str) -> None:
    policy = small_policy("qwen2_5_vl")
    groups = ragged([video_prompt("qwen2_5_vl", [prompt], [])], [[3, 1]])
    with calls_of(policy.model.model.language_model.layers[0]) as rows, torch.no_grad():
        policy.logprobs(groups, [None])
    # Six columns for two completions under a mask, four tokens without padding.
    assert rows == [torch.Size([1, prompt + {"dense": 6, "split": 4}[form], 48])]


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(UserError, match=r"^model\.attention_form=packed; choose from auto, dense, split$"):
        small_policy("qwen2_5_vl", "packed")


# ---------------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("max_tokens", [1, 40, 70])
def test_a_budget_changes_neither_scores_nor_gradients(max_tokens: int, checkpointing: bool) -> None:
    # In double precision, as float32 is no finer than 1e-6 around these log-probs. The gradients are: the
    # model's norms round to float32 within.
    policy = small_policy("qwen2_5_vl", dtype=torch.float64)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.train()
    groups = ragged(prompts("qwen2_5_vl", torch.float64), LENGTHS)
    whole = policy.logprobs(groups, policy.vision(groups.inputs))
    expected, slopes = scores_and_gradients(policy, groups)
    policy.max_tokens = max_tokens
    with calls_of(policy.model.model.language_model.layers[0]) as rows, torch.no_grad():
        parts = policy.logprobs(groups, policy.vision(groups.inputs))
    # Prompts of 21, 44, 9 and 45 tokens, before completions of 13, 12, 13 and 7.
    assert [item["input_ids"].shape[1] for item in groups.inputs] == [21, 44, 9, 45]
    sizes = {
        1: [26, 22, 28, 47, 51, 46, 15, 15, 10, 46, 47, 49],  # a prompt and a completion at least
        40: [34, 47, 51, 46, 22, 46, 47, 49],
        70: [34, 56, 70, 49],
    }
    assert [shape[0] * shape[1] for shape in rows] == sizes[max_tokens]
    found, own_slopes = scores_and_gradients(policy, groups)
    assert (found - expected).abs().max() <= 1e-9
    assert largest_relative_error(own_slopes, slopes) <= 1e-6
    assert (parts.entropy - whole.entropy).abs().max() <= 1e-9
    assert (parts.prompt_hidden - whole.prompt_hidden).abs().max() <= 1e-9


def test_a_pass_is_done_with_before_the_next_begins() -> None:
    # What bounds the memory: forward without a graph, then pass by pass forward and backward.
    policy = small_policy("qwen2_5_vl")
    policy.max_tokens = 40
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    order: list[str] = []
    layer = policy.model.model.language_model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: order.append("forward"))
    layer.register_full_backward_hook(lambda *_: order.append("backward"))
    policy.logprobs(groups, policy.vision(groups.inputs)).logprobs.sum().backward()
    assert order == ["forward"] * 8 + ["forward", "backward"] * 8


def test_a_budget_below_one_is_named() -> None:
    with pytest.raises(UserError, match=r"^model\.max_tokens=0: "):
        VideoPolicy(MODELS["qwen2_5_vl"](), load_encoder("builtin:tiny"), max_tokens=0)


# --------------------------------------------------------------------------------------------- rollout


ROLLOUTS = [
    ("qwen2_5_vl", {"temperature": 0}),
    ("qwen2_5_vl", {"temperature": 1.5, "top_k": 9}),
    *((family, {"temperature": 1.2}) for family in MODELS),
]


@pytest.mark.parametrize(("family", "settings"), ROLLOUTS)
def test_tokens_are_those_of_plain_forwards_whenever_rows_leave(
    family: str, settings: dict[str, Any]
) -> None:
    policy = small_policy(family)
    inputs = prompts(family)

    def push(_module: Any, _args: Any, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., policy.encoder.end_of_turn] += 5  # completions that end soon and at different times
        return logits

    policy.model.lm_head.register_forward_hook(push)
    sampling = Sampling(max_new_tokens=8, **settings)
    torch.manual_seed(3)
    expected, logprobs = expanded_rollout(policy, inputs, 4, sampling)
    for form in FORMS:  # the prompts read together and one by one
        policy.attention_form = form
        torch.manual_seed(3)
        with calls_of(policy.model.model.language_model.layers[0]) as rows:
            groups = policy.rollout(inputs, policy.vision(inputs), 4, sampling)
        assert torch.equal(groups.completion_ids.flatten(0, 1), expected)
        assert (groups.logprobs.flatten(0, 1) - logprobs).abs().max() <= 1e-4
        assert len([shape for shape in rows if shape[1] > 1]) == {"dense": 1, "split": 4}[form]
        steps = [shape[0] for shape in rows if shape[1] == 1]
        if settings["temperature"]:
            assert len(set(groups.lengths.flatten().tolist())) > 3
            assert steps == sorted(steps, reverse=True)
            assert steps[0] > steps[-1]  # rows left


# ----------------------------------------------------------------------------------- nothing may be lost


@pytest.mark.parametrize("name", ["mm_token_type_ids", "second_per_grid_ts", "video_grid_thw"])
@pytest.mark.parametrize("form", FORMS)
def test_no_forward_goes_on_without_an_input(form: str, name: str) -> None:
    policy = small_policy("qwen2_5_vl", form)
    whole = prompts("qwen2_5_vl")[:1]
    features = policy.vision(whole)
    torn = [{key: value for key, value in whole[0].items() if key != name}]
    calls = [
        lambda inputs: policy.rollout(inputs, features, 2, Sampling(2)).logprobs,
        lambda inputs: policy.logprobs(ragged(inputs, [[2, 1]]), features).logprobs,
    ]
    for call in calls:
        call(whole)
        if name == "video_grid_thw":
            continue  # a text alone has none
        with pytest.raises(KeyError, match=name):
            call(torn)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_every_forward_sees_the_time_and_the_place_of_frames(form: str) -> None:
    policy = small_policy("qwen2_5_vl", form)
    inputs = prompts("qwen2_5_vl")[:1]
    features = policy.vision(inputs)

    def both(changed: PromptInputs) -> list[Tensor]:
        torch.manual_seed(0)
        groups = policy.rollout([changed], features, 2, Sampling(1))
        return [groups.logprobs, policy.logprobs(ragged([changed], [[2, 1]]), features).logprobs]

    same = both(dict(inputs[0]))
    later = both(inputs[0] | {"second_per_grid_ts": torch.tensor([4.0])})
    turned = both(inputs[0] | {"video_grid_thw": torch.tensor([[2, 6, 4]])})
    for own, other, third in zip(same, later, turned, strict=True):
        assert not torch.allclose(own, other, atol=1e-3)
        assert not torch.allclose(own, third, atol=1e-3)
