"""Attention of decoding, against attention over keys and values that are written out for every row."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vcr1.policy.generation.decoding import BLOCK, SharedCache
from vcr1.policy.generation.rollout import Slots, compact_finished

HEADS, KV, SIZE = 6, 2, 4


def stems(lengths: list[int]) -> SharedCache:
    """One layer's random keys and values of prompts, padded on the left."""
    longest = max(lengths)
    padding = torch.arange(longest) < longest - torch.tensor(lengths)[:, None]
    pair = (torch.randn(len(lengths), KV, longest, SIZE), torch.randn(len(lengths), KV, longest, SIZE))
    return SharedCache([pair], padding[:, None, None] if padding.any() else None)


def expected(cache: SharedCache, prompt: int, query: Tensor, own: list[tuple[Tensor, Tensor]]) -> Tensor:
    """``[H, 1, D]`` for one row: its prompt without padding, and its own columns, one behind the other."""
    kept = slice(None) if cache.padding is None else ~cache.padding[prompt, 0, 0]
    parts = [
        (tensor[prompt][:, kept], *columns)
        for tensor, columns in zip(cache.prompts[0], zip(*own, strict=True), strict=True)
    ]
    keys, values = (torch.cat(part, 1).repeat_interleave(HEADS // KV, 0) for part in parts)
    return scaled_dot_product_attention(query, keys, values, scale=0.3)


def test_a_step_attends_to_the_prompt_and_to_its_own_tokens() -> None:
    torch.manual_seed(0)
    cache = stems([5, 9, 2])
    history: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(6)]
    for _ in range(BLOCK + 2):  # one more block than there was at first
        query, key, value = (
            torch.randn(6, HEADS, 1, SIZE),
            torch.randn(6, KV, 1, SIZE),
            torch.randn(6, KV, 1, SIZE),
        )
        found = cache.attend(0, query, key, value, 0.3, 0.0)
        cache.length += 1
        for row in range(6):
            history[row].append((key[row], value[row]))
        assert found.shape == query.shape
    for row in range(6):
        assert torch.allclose(found[row], expected(cache, row // 2, query[row], history[row]), atol=1e-6)
    # Two slots to a prompt, and the prompts' part as it was.
    assert cache.prompts[0][0].shape == (3, KV, 9, SIZE)
    assert cache.own[0][0].shape == (3, KV, 2, 2 * BLOCK, SIZE)


def test_rows_that_leave_take_nothing_of_the_others_along() -> None:
    torch.manual_seed(0)
    cache = stems([5, 9, 2])
    history: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(9)]
    slots = Slots.all_of(3, 3, torch.device("cpu"))

    def advance() -> tuple[Tensor, Tensor]:
        rows = slots.held.flatten().tolist()
        query, key, value = (torch.randn(9, heads, 1, SIZE)[rows] for heads in (HEADS, KV, KV))
        found = cache.attend(0, query, key, value, 0.3, 0.0)
        cache.length += 1
        for place, row in zip(slots.places.tolist(), slots.rows.tolist(), strict=True):
            history[row].append((key[place], value[place]))
        return query, found

    advance()
    finished = torch.zeros(3, 3, dtype=torch.bool)
    finished[0, 1] = True
    assert compact_finished(slots, finished, cache) is slots  # 3 x 3 slots are still needed
    advance()
    finished[1] = True
    finished[2, 0] = True
    slots = compact_finished(slots, finished, cache)
    assert slots.held.tolist() == [[0, 2], [7, 8]]  # 4 of 9 slots
    assert (slots.rows.tolist(), slots.places.tolist()) == ([0, 2, 7, 8], [0, 1, 2, 3])
    advance()
    finished[2, 1] = True
    assert compact_finished(slots, finished, cache) is slots
    finished[0, 0] = True
    slots = compact_finished(slots, finished, cache)
    assert slots.held.tolist() == [[2], [8]]
    query, found = advance()
    for place, row in enumerate((2, 8)):
        assert torch.allclose(found[place], expected(cache, place, query[place], history[row]), atol=1e-6)


def test_a_prompt_with_fewer_rows_than_another_holds_one_twice() -> None:
    cache = stems([4, 4])
    cache.attend(
        0, torch.zeros(8, HEADS, 1, SIZE), torch.randn(8, KV, 1, SIZE), torch.randn(8, KV, 1, SIZE), 1, 0
    )
    cache.length += 1
    finished = torch.tensor([[True, False, False, True], [True, True, False, True]])
    slots = compact_finished(Slots.all_of(2, 4, torch.device("cpu")), finished, cache)
    assert slots.held.tolist() == [[1, 2], [6, 6]]
    assert (slots.rows.tolist(), slots.places.tolist()) == ([1, 2, 6], [0, 1, 2])
    keys = cache.own[0][0][:, :, :, 0]
    assert torch.equal(keys[1, :, 0], keys[1, :, 1])
