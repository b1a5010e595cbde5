"""Flex attention against SDPA, and the trial that it has to pass before it is used."""

import logging
from typing import Any

import pytest
import torch
from small_models import MODELS, prompts, ragged, small_policy
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask
from torch.nn.functional import scaled_dot_product_attention

from vcr1.errors import UserError
from vcr1.policy import VideoPolicy
from vcr1.policy.attention.flex import TRIALS, _say_once, flex_layout, takes_flex, trial
from vcr1.policy.attention.tree import Branches, TreeLayout

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
CPU = torch.device("cpu")
LENGTHS = [[5, 1, 7], [3, 7, 2], [6, 6, 1], [1, 2, 4]]


def masked(
    query: Tensor, key: Tensor, value: Tensor, block_mask: Any, scale: Any, enable_gqa: bool
) -> Tensor:
    """What flex attention computes, by its whole mask: this has a backward pass on a CPU, too."""
    rows = query.shape[2]
    seen = create_mask(block_mask.mask_mod, 1, 1, rows, rows, device="cpu")
    output: Tensor = scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
    )
    return output


def test_a_token_sees_its_prompt_and_its_own_completion() -> None:
    layout = flex_layout([(2, [1, 0, 2]), (1, [1])], CPU)
    rows = create_mask(layout.mask.mask_mod, 1, 1, 7, 7, device="cpu")[0, 0].int().tolist()
    assert rows == [
        [1, 0, 0, 0, 0, 0, 0],  # the first prompt
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],  # its first completion; the second is empty
        [1, 1, 0, 1, 0, 0, 0],  # its third
        [1, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],  # the second prompt
        [0, 0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("scaling", [16**-0.5, 0.7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_flex_is_sdpa(dtype: torch.dtype, tolerance: float, scaling: float) -> None:
    groups = [(stem, list(counts)) for stem, counts in TRIALS[0]]
    length = 150 + 47 + 33 + 159
    chance = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, length, 16, generator=chance).to(dtype) for heads in (6, 2, 2))
    tree = TreeLayout(tuple(Branches.of(stem, counts, CPU) for stem, counts in groups))
    expected = tree.attend(0, query, key, value, scaling, 0.0)
    found = flex_layout(groups, CPU).attend(0, query, key, value, scaling, 0.0)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert not expected.isnan().any()


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
@pytest.mark.parametrize("family", MODELS)
def test_scores_by_flex_are_those_by_sdpa(family: str, precision: str) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    policy = small_policy(family, "split", dtype)
    groups = ragged(prompts(family, dtype), LENGTHS)
    scores = []
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        for kernel in ("sdpa", "flex"):
            other = VideoPolicy(policy.model, policy.encoder, "split", tree_attention=kernel)
            scores.append(other.logprobs(groups, other.vision(groups.inputs)).logprobs)
    expected, found = scores
    assert float(expected.min()) < -3
    if precision == "fp32":
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    else:  # a rounded state of 1 in 256, through three layers
        assert float((found - expected).norm() / expected.norm()) < 0.02


@torch.no_grad()
def test_passes_within_a_budget_go_through_flex() -> None:
    policy = small_policy("qwen2_5_vl", "split")
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    features = policy.vision(groups.inputs)
    expected = policy.logprobs(groups, features).logprobs
    other = VideoPolicy(policy.model, policy.encoder, "split", 60, tree_attention="flex")
    torch.testing.assert_close(other.logprobs(groups, features).logprobs, expected, atol=1e-5, rtol=1e-5)


# ----------------------------------------------------------------------------------------------- the trial


def attempt(kernel: Any, dtype: torch.dtype = torch.float32) -> str | None:
    return trial(6, 2, 16, dtype, CPU, kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_computes_the_same_passes_wherever_it_is_tried(dtype: torch.dtype) -> None:
    assert attempt(masked, dtype) is None
    trial.cache_clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert attempt(masked, dtype) is None


def test_a_trial_uses_up_no_chance() -> None:
    trial.cache_clear()
    before = torch.get_rng_state()
    assert attempt(masked) is None
    assert torch.get_rng_state().equal(before)


def test_another_mask_does_not_pass() -> None:
    def causal(query: Tensor, key: Tensor, value: Tensor, block_mask: Any, **settings: Any) -> Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=True, **settings)

    message = attempt(causal)
    assert message is not None
    assert message.startswith("flex attention computes another output here (off by ")


def test_another_gradient_does_not_pass() -> None:
    def without(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        half = 0.5 * key + 0.5 * key.detach()
        return masked(query, half, value, **settings)

    assert attempt(without) == (
        "flex attention computes another gradient of the keys here (off by 0.5 of its norm)"
    )


def test_no_number_does_not_pass() -> None:
    def nothing(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        return masked(query, key, value, **settings) * float("nan")

    assert attempt(nothing) == "flex attention computes another output here (off by nan of its norm)"


def test_a_type_without_a_tolerance_does_not_pass() -> None:
    assert attempt(masked, torch.float64) == "flex attention is not used in torch.float64"


# ---------------------------------------------------------------------------------------------- the choice


def test_training_by_flex_on_a_cpu_is_refused() -> None:
    policy = small_policy("qwen2_5_vl", "split")
    other = VideoPolicy(policy.model, policy.encoder, "split", tree_attention="flex")
    groups = ragged(prompts("qwen2_5_vl"), LENGTHS)
    features = other.vision(groups.inputs)
    expected = (
        r"^model\.tree_attention=flex: flex attention fails here .*backward on CPU.*tree_attention=sdpa$"
    )
    with pytest.raises(UserError, match=expected):
        other.logprobs(groups, features)


def test_auto_on_a_cpu_is_sdpa(caplog: pytest.LogCaptureFixture) -> None:
    assert not takes_flex("auto", small_policy("qwen2_5_vl").model, CPU)
    assert caplog.records == []


def test_auto_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A device that this machine, on Linux, has not got: the trial cannot even begin."""
    model = small_policy("qwen2_5_vl").model
    model.config.get_text_config().head_dim = 16
    nowhere = torch.device("mps")
    _say_once.cache_clear()
    assert not takes_flex("auto", model, nowhere)
    assert not takes_flex("auto", model, nowhere)  # the reference
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("model.tree_attention=auto takes sdpa: flex attention ")
    with pytest.raises(UserError, match=r"^model\.tree_attention=flex: flex attention "):
        takes_flex("flex", model, nowhere)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("head_dim", 24, "heads of 16, 32, 64, 128, 256, the model's have 24|needs triton"),
        ("attention_dropout", 0.1, "cannot drop weights"),
    ],
)
def test_a_model_that_does_not_fit_is_named(name: str, value: float, reason: str) -> None:
    model = small_policy("qwen2_5_vl").model
    setattr(model.config.get_text_config(), name, value)
    with pytest.raises(UserError, match=rf"^model\.tree_attention=flex: .*({reason})"):
        takes_flex("flex", model, torch.device("mps"))


def test_an_unknown_attention_is_named() -> None:
    policy = small_policy("qwen2_5_vl")
    with pytest.raises(UserError, match=r"^model\.tree_attention=magic; choose from auto, sdpa, flex$"):
        VideoPolicy(policy.model, policy.encoder, tree_attention="magic")
