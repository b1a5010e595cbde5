"""Weights that are cast once for a rollout: the numbers of autocast's own casts, and nothing left behind."""

import pytest
import torch
from small_models import prompts, small_policy
from torch import nn

from vcr1.policy import LoRA, Sampling
from vcr1.policy.generation import engine
from vcr1.policy.weights.casting import cast_weights
from vcr1.policy.weights.lora import adapt

CPU = torch.device("cpu")


@pytest.mark.parametrize("adapters", [None, LoRA(rank=4), LoRA(rank=4, dora=True)])
def test_a_rollout_under_autocast_is_the_same_to_the_bit(
    adapters: LoRA | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = small_policy("qwen2_5_vl")
    if adapters is not None:
        adapt(policy.model, adapters, policy.encoder.family)
    inputs = prompts("qwen2_5_vl")
    before = dict(policy.model.named_parameters())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        features = policy.vision(inputs)
        found = policy.rollout(inputs, features, 2, Sampling(8), [1, 2, 3, 4])
        monkeypatch.setattr(engine, "cast_weights", lambda *_: cast_weights([], CPU))
        expected = policy.rollout(inputs, features, 2, Sampling(8), [1, 2, 3, 4])
    assert torch.equal(found.completion_ids, expected.completion_ids)
    assert torch.equal(found.logprobs, expected.logprobs)
    after = dict(policy.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is weight for name, weight in before.items())


def test_linear_weights_alone_are_cast_and_only_for_a_while() -> None:
    embedding, head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
    head.weight = embedding.weight  # tied
    norm = nn.LayerNorm(3)
    model = nn.Sequential(embedding, norm, head)
    with cast_weights([model], CPU):
        assert head.weight.dtype == torch.float32  # without autocast there is nothing to do
    with torch.autocast("cpu", torch.bfloat16), cast_weights([model], CPU):
        assert head.weight.dtype == torch.bfloat16
        assert not head.weight.requires_grad
        assert embedding.weight.dtype == norm.weight.dtype == torch.float32
    assert head.weight is embedding.weight
