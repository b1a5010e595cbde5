import pytest

from vcr1.distributed.sharded import ShardedStrategy, replica_groups
from vcr1.errors import UserError
from vcr1.policy import VideoPolicy, load_policy


@pytest.mark.parametrize(
    ("replicas", "ranks", "nodes", "groups"),
    [(1, 8, 1, 1), (2, 8, 1, 2), ("nodes", 16, 2, 2), (16, 16, 2, 16)],
)
def test_ranks_are_divided_into_replicas(replicas: int | str, ranks: int, nodes: int, groups: int) -> None:
    assert replica_groups(replicas, ranks, nodes) == groups


@pytest.mark.parametrize("replicas", [3, 0, -1, 16, "node", 1.5])
def test_ranks_that_cannot_be_divided_so_are_named(replicas: int | str) -> None:
    with pytest.raises(
        UserError, match=rf"^trainer\.strategy\.replicas={replicas}: 8 ranks cannot be divided"
    ):
        replica_groups(replicas, 8, 2)


def test_a_family_without_an_adapter_is_not_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    policy: VideoPolicy = load_policy("builtin:tiny")
    monkeypatch.setattr(policy, "shares_prompts", False)
    with pytest.raises(UserError, match=r"^trainer\.strategy: a qwen2_5_vl has no adapter"):
        ShardedStrategy().shard([policy])
