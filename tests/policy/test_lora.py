import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from policy_cases import SHORT, gradients, largest_relative_error, make_clip, plain_groups, question, roll
from small_models import MODELS, prompts, ragged, small_policy
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText

from vcr1.errors import UserError
from vcr1.policy import VideoPolicy, load_policy, reference_of
from vcr1.policy.families import FAMILIES
from vcr1.policy.weights.lora import LoRA, adapt, adapters_off, merged_state
from vcr1.records import PromptInputs


def adapted(**settings: Any) -> VideoPolicy:
    """The tiny model with adapters that do something."""
    policy = load_policy("builtin:tiny", lora=LoRA(rank=4, **settings))
    disturb(policy)
    return policy


@torch.no_grad()
def disturb(policy: VideoPolicy) -> None:
    """Adapters begin at zero; let them do something."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0.0, 0.05, generator=generator)


@pytest.fixture
def inputs(clips: Path) -> list[PromptInputs]:
    encoder = load_policy("builtin:tiny").encoder
    return [encoder(question(), make_clip(clips, 6.0)), encoder(SHORT, make_clip(clips, 3.0))]


def test_only_the_adapters_of_the_language_model_are_trained() -> None:
    policy = load_policy("builtin:tiny", lora=LoRA(rank=4))
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_" in name and ".language_model." in name for name in trained)
    # Two matrices for each of the seven projections of a layer.
    assert len(trained) == 14 * policy.model.config.text_config.num_hidden_layers
    assert policy.is_adapted
    assert policy.vision_is_frozen


def test_the_vision_tower_is_adapted_on_request() -> None:
    policy = load_policy("builtin:tiny", lora=LoRA(rank=4, vision=True))
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    # qkv and proj of the attention, three projections of the perceptron; the patch embedding stays.
    assert sum(".visual.blocks." in name for name in trained) == 10 * policy.model.config.vision_config.depth
    assert not any("patch_embed" in name or "merger" in name for name in trained)
    assert not policy.vision_is_frozen


def test_fresh_adapters_change_nothing(inputs: list[PromptInputs]) -> None:
    base, policy = load_policy("builtin:tiny"), load_policy("builtin:tiny", lora=LoRA())
    groups = roll(base, inputs, 2, max_new_tokens=8, temperature=0.0)
    again = roll(policy, inputs, 2, max_new_tokens=8, temperature=0.0)
    assert groups.texts == again.texts
    assert torch.equal(groups.logprobs, again.logprobs)


@pytest.mark.parametrize("form", ["dense", "split"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", MODELS)
def test_scores_and_gradients_are_those_of_plain_forwards(
    family: str, form: str, checkpointing: bool
) -> None:
    policy = small_policy(family, form)
    adapt(policy.model, LoRA(rank=4, vision=True), FAMILIES[family])
    disturb(policy)
    groups = ragged(prompts(family), [[5, 1], [3, 7], [6, 6], [1, 2]])
    expected = torch.zeros(groups.completion_mask.shape)
    for place, logprobs, _ in plain_groups(policy.model, groups):
        policy.model.model.rope_deltas = None  # what the model keeps of another prompt
        expected[place][: len(logprobs)] = logprobs
    slopes = gradients(policy.model, (expected**2).sum())
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.train()
    found = policy.logprobs(groups, policy.vision(groups.inputs)).logprobs
    own_slopes = gradients(policy.model, (found**2).sum())
    assert (found - expected).abs().max() <= 1e-5
    assert any(".visual." in name for name in slopes)
    assert largest_relative_error(own_slopes, slopes) <= 1e-5


@pytest.mark.parametrize("dora", [False, True])
@torch.no_grad()
def test_the_model_with_merged_adapters_computes_the_same(inputs: list[PromptInputs], dora: bool) -> None:
    policy, merged = adapted(dora=dora, vision=True).double(), load_policy("builtin:tiny").double()
    merged.model.load_state_dict(merged_state(policy.model))
    groups = roll(merged, inputs, 3, max_new_tokens=8)
    ours = policy.logprobs(groups, policy.vision(inputs)).logprobs
    theirs = merged.logprobs(groups, merged.vision(inputs)).logprobs
    # The model's norms round to float32 within, so that different weights for the same are told apart there.
    assert (ours - theirs).abs().max() <= 1e-5
    assert (
        ours - load_policy("builtin:tiny").double().logprobs(groups, merged.vision(inputs)).logprobs
    ).abs().max() > 1e-3


def test_the_reference_is_the_base_and_no_second_copy(inputs: list[PromptInputs]) -> None:
    base, policy = load_policy("builtin:tiny"), adapted(vision=True)
    policy.train()
    reference: Any = reference_of(policy)
    assert reference.policy is policy
    groups = roll(policy, inputs, 2, max_new_tokens=8)
    features = reference.vision(inputs)
    found = reference.logprobs(groups, features).logprobs
    expected = base.logprobs(groups, base.vision(inputs)).logprobs
    assert torch.equal(found, expected)
    assert not found.requires_grad
    own = policy.logprobs(groups, policy.vision(inputs)).logprobs
    assert (own - expected).abs().max() > 1e-3
    assert policy.training


def test_a_graph_survives_that_the_adapters_are_off_for_a_while(inputs: list[PromptInputs]) -> None:
    policy = adapted()
    groups = roll(policy, inputs, 2, max_new_tokens=4)

    def gradients(between: bool) -> dict[str, torch.Tensor]:
        policy.zero_grad()
        total = policy.logprobs(groups, policy.vision(inputs)).logprobs.sum()
        if between:
            reference_of(policy).logprobs(groups, policy.vision(inputs))
        total.backward()
        return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}

    plain, disturbed = gradients(False), gradients(True)
    assert plain.keys() == disturbed.keys()
    assert all(torch.equal(plain[name], disturbed[name]) for name in plain)


def test_merging_leaves_the_policy_as_it_is() -> None:
    policy = adapted()
    before = copy.deepcopy(policy.model.state_dict())
    merged = merged_state(policy.model)
    after = policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert merged.keys() == load_policy("builtin:tiny").model.state_dict().keys()


def test_a_saved_policy_is_an_ordinary_model(inputs: list[PromptInputs], tmp_path: Path) -> None:
    policy = adapted()
    policy.save(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert not isinstance(model, PeftModel)
    plain = load_policy(str(tmp_path / "model"))
    groups = roll(plain, inputs, 2, max_new_tokens=8)
    assert_close(
        policy.logprobs(groups, policy.vision(inputs)).logprobs,
        plain.logprobs(groups, plain.vision(inputs)).logprobs,
        atol=1e-4,  # the merged weights are rounded
        rtol=0.0,
    )


def test_adapters_are_trained_in_full_precision_over_a_half_precision_base() -> None:
    policy = load_policy("builtin:tiny", dtype="bfloat16", lora=LoRA(rank=4))
    assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in policy.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_the_switch_is_put_back_after_an_error() -> None:
    policy = adapted()
    switches = [module for module in policy.modules() if hasattr(module, "_disable_adapters")]
    with pytest.raises(RuntimeError), adapters_off(policy):
        raise RuntimeError
    assert switches
    assert not any(module._disable_adapters for module in switches)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rank": 0}, r"model\.lora\.rank=0"),
        ({"alpha": 0}, r"model\.lora\.alpha=0"),
        ({"dropout": 1.0}, r"model\.lora\.dropout=1\.0"),
        ({"targets": ["nowhere"]}, r"model\.lora\.targets=\['nowhere'\]"),
    ],
)
def test_impossible_adapters_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_policy("builtin:tiny", lora=LoRA(**settings))


def test_adapting_what_is_frozen_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.freeze"):
        load_policy("builtin:tiny", freeze=["vision"], lora=LoRA(vision=True))


def test_a_frozen_part_gets_no_adapters_whatever_the_targets_say() -> None:
    policy = load_policy("builtin:tiny", freeze=["vision"], lora=LoRA(rank=2, targets="all-linear"))
    adapted = {name for name, one in policy.model.named_parameters() if one.requires_grad}
    assert adapted
    assert all("lora_" in name for name in adapted)
    assert not [name for name in adapted if "visual" in name and "merger" not in name]
    assert [name for name in adapted if "language_model" in name]
    both = load_policy("builtin:tiny", lora=LoRA(rank=2, targets="all-linear"))
    assert [
        name for name, one in both.model.named_parameters() if one.requires_grad and "visual.blocks" in name
    ]


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_names_of_a_weight_is_refused(target: str) -> None:
    with pytest.raises(UserError, match=rf"model\.lora\.targets=.*adapts .*{target}.*tie_word_embeddings"):
        load_policy("builtin:tiny", lora=LoRA(rank=2, targets=[target, "q_proj"]))


def test_freezing_a_head_that_is_the_embeddings_is_said(caplog: pytest.LogCaptureFixture) -> None:
    policy = load_policy("builtin:tiny", freeze=["head"])
    assert "the embeddings are the same weight" in caplog.text
    assert not policy.model.get_input_embeddings().weight.requires_grad
