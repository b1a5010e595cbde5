"""Features from disk: the same to the bit, and only where nothing that decides them has changed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_cases import calls_of, gradients, make_clip, question
from small_models import MODELS, prompts, ragged, small_policy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from vcr1.errors import UserError
from vcr1.policy import VideoPolicy, load_policy
from vcr1.policy.features.cache import FeatureCache
from vcr1.records import PromptInputs


def frozen(family: str, folder: Path | None, dtype: torch.dtype = torch.float32) -> VideoPolicy:
    """The small random model of a family, its tower frozen."""
    plain = small_policy(family, dtype=dtype)
    plain.model.model.visual.requires_grad_(False)
    cache = None if folder is None else FeatureCache(folder)
    return VideoPolicy(plain.model, plain.encoder, feature_cache=cache)


def counts(policy: VideoPolicy) -> tuple[int, int]:
    """Hits and misses since the last time."""
    cache = policy.feature_cache
    assert cache is not None
    found = cache.hits, cache.misses
    cache.hits = cache.misses = 0
    return found


def scores_and_gradients(policy: VideoPolicy, inputs: list[PromptInputs]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and gradients of their weighted sum; batches of one prompt, as training has them."""
    logprobs, total = [], torch.zeros(())
    for item in inputs:
        groups = ragged([item], [[5, 1, 7]])
        found = policy.logprobs(groups, policy.vision([item])).logprobs
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
        total = total + (found * weights).sum()
        logprobs.append(found.detach())
    return torch.stack(logprobs), gradients(policy.model, total)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16-mixed"])
@pytest.mark.parametrize("family", MODELS)
def test_scores_and_gradients_are_the_same_to_the_bit(family: str, bf16: bool, tmp_path: Path) -> None:
    inputs = prompts(family)  # one has no video
    results = []
    for folder in (None, tmp_path, tmp_path):
        policy = frozen(family, folder).train()
        with calls_of(policy.model.model.visual) as passes, torch.autocast("cpu", torch.bfloat16, bf16):
            results.append(scores_and_gradients(policy, inputs))
        assert len(passes) == (0 if len(results) == 3 else 3)
        if folder is not None:
            assert counts(policy) == ((3, 0) if len(results) == 3 else (0, 3))
    (logprobs, slopes), *others = results
    assert not any("visual" in name for name in slopes)
    assert len(slopes) > 10
    for other, other_slopes in others:
        assert other.equal(logprobs)
        assert other_slopes.keys() == slopes.keys()
        assert all(other_slopes[name].equal(slopes[name]) for name in slopes)


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    policy = frozen("qwen2_5_vl", tmp_path)
    inputs = prompts("qwen2_5_vl")
    alone = [policy.vision([item])[0] for item in inputs[:2]]
    assert counts(policy) == (0, 2)
    with calls_of(policy.model.model.visual) as passes:
        together = policy.vision(inputs)
    assert [shape[0] for shape in passes] == [6 * 6 * 4]  # the patches of the last prompt
    assert counts(policy) == (2, 1)
    assert together[2] is None
    for found, expected in zip(together, alone, strict=False):
        assert found is not None
        assert expected is not None
        assert found.equal(expected)
        assert not found.requires_grad
    assert str(policy.feature_cache) == f"feature cache {tmp_path}: 0 read, 0 computed"


# -------------------------------------------------------------------------------------- what makes a miss


def other_pixels(inputs: PromptInputs) -> None:
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].clone()
    inputs["pixel_values_videos"][0, 0] += 1e-6


def other_grid(inputs: PromptInputs) -> None:
    inputs["video_grid_thw"] = inputs["video_grid_thw"][:, [0, 2, 1]]  # the same patches, laid out otherwise


def other_type(inputs: PromptInputs) -> None:
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].double()


@pytest.mark.parametrize("change", [other_pixels, other_grid, other_type])
def test_another_video_is_computed(tmp_path: Path, change: Callable[[PromptInputs], None]) -> None:
    policy = frozen("qwen2_5_vl", tmp_path)
    inputs = prompts("qwen2_5_vl")[0]
    policy.vision([inputs])
    change(inputs)
    policy.vision([inputs])
    assert counts(policy) == (0, 2)
    policy.vision([inputs])
    assert counts(policy) == (1, 0)


def test_another_question_about_the_same_frames_is_a_hit(tmp_path: Path, clips: Path) -> None:
    policy = load_policy("builtin:tiny", freeze=["vision"], feature_cache=str(tmp_path))
    for query in ("the red square appears", "a blue circle is seen, and then it goes"):
        policy.vision([policy.encoder(question(query), make_clip(clips, 4.0))])
    assert counts(policy) == (1, 1)
    policy.vision([policy.encoder(question(), make_clip(clips, 4.0, fps=1.0))])  # other frames
    assert counts(policy) == (0, 1)


@torch.no_grad()
def nudge(model: Any) -> None:
    model.model.visual.merger.mlp[0].bias[0] += 1e-6


@torch.no_grad()
def load(model: Any) -> None:
    """As a checkpoint is loaded, after the cache was used already."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["model.visual.blocks.0.norm1.weight"][0] = 0.5
    model.load_state_dict(state)


def replace(model: Any) -> None:
    model.model.visual.double()


@pytest.mark.parametrize("change", [nudge, load, replace])
def test_a_changed_tower_is_another_tower(tmp_path: Path, change: Callable[[Any], None]) -> None:
    policy = frozen("qwen2_5_vl", tmp_path)
    inputs = prompts("qwen2_5_vl")[:1]
    policy.vision(inputs)
    change(policy.model)
    policy.vision(inputs)
    assert counts(policy) == (0, 2)
    policy.vision(inputs)
    assert counts(policy) == (1, 0)


def test_a_tower_of_another_configuration_is_another_tower(tmp_path: Path) -> None:
    inputs = prompts("qwen2_5_vl")[:1]
    first, second = frozen("qwen2_5_vl", tmp_path), frozen("qwen2_5_vl", tmp_path)
    second.model.model.visual.config.window_size = 16
    first.vision(inputs)
    second.vision(inputs)
    assert counts(second) == (0, 1)


def test_a_changed_language_model_is_no_other_tower(tmp_path: Path) -> None:
    policy = frozen("qwen2_5_vl", tmp_path)
    inputs = prompts("qwen2_5_vl")[:1]
    policy.vision(inputs)
    with torch.no_grad():
        policy.model.lm_head.weight += 1
    policy.vision(inputs)
    assert counts(policy) == (1, 1)


def test_another_precision_is_computed(tmp_path: Path) -> None:
    inputs = prompts("qwen2_5_vl")[:1]
    policy = frozen("qwen2_5_vl", tmp_path)
    for _ in range(2):
        (plain,) = policy.vision(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            (mixed,) = policy.vision(inputs)
        assert plain is not None
        assert mixed is not None
        assert (plain.dtype, mixed.dtype) == (torch.float32, torch.bfloat16)
    assert counts(policy) == (2, 2)
    half = frozen("qwen2_5_vl", tmp_path, torch.bfloat16)  # the same weights, rounded
    half.vision(inputs)
    assert counts(half) == (0, 1)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("freeze", [[], ["merger"], ["language"]])
def test_a_tower_that_is_trained_is_refused(tmp_path: Path, freeze: list[str]) -> None:
    with pytest.raises(UserError, match=r"^model\.feature_cache=.* trained: set model\.freeze=\[vision\]"):
        load_policy("builtin:tiny", freeze=freeze, feature_cache=str(tmp_path))


def test_a_tower_that_is_trained_later_is_refused(tmp_path: Path) -> None:
    policy = frozen("qwen2_5_vl", tmp_path)
    policy.model.model.visual.merger.requires_grad_(True)
    with pytest.raises(UserError, match=r"set model\.freeze=\[vision\]"):
        policy.vision(prompts("qwen2_5_vl"))


@pytest.fixture
def one_rank() -> Iterator[DeviceMesh]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_a_tower_that_is_sharded_is_refused(tmp_path: Path, one_rank: DeviceMesh) -> None:
    """Ranks miss different prompts: in a tower whose forward they share, one would wait for ever."""
    policy = frozen("qwen2_5_vl", tmp_path)
    fully_shard(policy.model.model.visual, mesh=one_rank)
    with pytest.raises(UserError, match=r"^model\.feature_cache=.* the strategy shards it: "):
        policy.vision(prompts("qwen2_5_vl"))


@pytest.mark.parametrize("gigabytes", [0, -1, float("nan"), float("inf"), "many", None])
def test_a_bound_that_is_none_is_named(tmp_path: Path, gigabytes: Any) -> None:
    with pytest.raises(UserError, match=rf"^model\.feature_cache_gb={gigabytes} is no positive number"):
        FeatureCache(tmp_path, gigabytes)
