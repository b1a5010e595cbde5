"""A policy that shares its weights with other ranks, and memory that runs out: decided by all together."""

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import prompts, small_policy
from test_out_of_memory import with_memory_for
from torch import nn

from vcr1.errors import UserError
from vcr1.policy import Sampling
from vcr1.policy.weights.sharding import Sharding, awaited_state

GIB = 2**30


class OtherRank:
    """What stands for the shards: another rank, which says in turn what it says of its memory."""

    def __init__(self, gathers: bool, said: list[int]) -> None:
        self.gathers = gathers
        self.said = said

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def max_over_ranks(self, count: int) -> int:
        return max(count, self.said.pop(0))


def test_a_rank_decodes_fewer_rows_where_another_has_no_memory() -> None:
    policy = small_policy("qwen2_5_vl")
    inputs = prompts("qwen2_5_vl")
    with torch.no_grad():
        features = policy.vision(inputs)
    settings = Sampling(6, temperature=1.0)
    expected = policy.rollout(inputs, features, 3, settings, [1, 2, 3, 4])
    other = OtherRank(True, [12, 6, 0])  # 12 completions failed there, then 6, then all went well
    policy.sharding = other  # type: ignore[assignment]
    found = policy.rollout(inputs, features, 3, settings, [1, 2, 3, 4])
    assert (policy.max_rows, other.said) == (3, [])
    assert torch.equal(found.completion_ids, expected.completion_ids)


def test_a_rank_without_memory_says_so_to_the_others() -> None:
    policy = small_policy("qwen2_5_vl")
    inputs = prompts("qwen2_5_vl")
    with torch.no_grad():
        features = policy.vision(inputs)
    other = OtherRank(True, [0, 0])
    policy.sharding = other  # type: ignore[assignment]
    with_memory_for(policy, 100)
    assert policy.rollout(inputs, features, 3, Sampling(6), [1, 2, 3, 4]).completion_ids.shape[:2] == (4, 3)
    assert (policy.max_rows, other.said) == (6, [])
    other.said = [0] * 9
    with pytest.raises(UserError, match=r"^out of memory with completions decoded at once of 1, which"):
        with_memory_for(policy, 0).rollout(inputs, features, 3, Sampling(6))


def test_ranks_that_step_together_cannot_go_on_without_one_of_them() -> None:
    policy = small_policy("qwen2_5_vl")
    inputs = prompts("qwen2_5_vl")
    with torch.no_grad():
        features = policy.vision(inputs)
    policy.sharding = OtherRank(False, [1] * 99)  # type: ignore[assignment]
    with pytest.raises(torch.OutOfMemoryError):
        with_memory_for(policy, 0).rollout(inputs, features, 3, Sampling(6))


def test_whether_all_weights_fit_counts_the_optimizer_s_state_before_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = nn.Linear(2**14, 2**14, bias=False)  # 1 GiB of float32
    device: Any = SimpleNamespace(type="cuda")
    free = {"bytes": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free["bytes"], 10 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    optimizer = torch.optim.AdamW(root.parameters())

    def fits(gib: float, compute: torch.dtype | None = None) -> bool:
        free["bytes"] = int(gib * GIB)
        sharding = Sharding(root, device, compute, gather=None)
        sharding.awaited = lambda: awaited_state([optimizer])
        return sharding._fits()

    # A fifth of 10 GiB stays free: 1 of weights, 2 of moments to come, 2 free.
    assert not fits(5.0)
    assert fits(5.01)
    assert not fits(4.5, torch.bfloat16)
    assert fits(4.51, torch.bfloat16)
    optimizer.state[root.weight] = {"exp_avg": None}
    assert fits(3.01)
    assert not fits(3.0)
