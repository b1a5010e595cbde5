"""Attention of decoding, against attention over keys and values that are written out for every row."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vcr1.policy.generation.decoding import WIDTH, ReadPrompts, SharedCache
from vcr1.policy.generation.slots import Slots, parts_of_prompts

HEADS, KV, SIZE = 6, 2, 4
NONE = 99


def read(lengths: list[int]) -> ReadPrompts:
    """One layer's random keys and values of prompts, padded on the left."""
    longest = max(lengths)
    padding = torch.arange(longest) < longest - torch.tensor(lengths)[:, None]
    pair = (torch.randn(len(lengths), KV, longest, SIZE), torch.randn(len(lengths), KV, longest, SIZE))
    return ReadPrompts(torch.zeros(len(lengths), 5), [pair], padding, torch.tensor(lengths))


def expected(cache: SharedCache, prompt: int, query: Tensor, own: list[tuple[Tensor, Tensor]]) -> Tensor:
    """``[H, 1, D]`` for one row: its prompt without padding, and its own columns, one behind the other."""
    kept = ~cache.padding[prompt, 0, 0]
    parts = [
        (tensor[prompt][:, kept], *columns)
        for tensor, columns in zip(cache.prompts[0], zip(*own, strict=True), strict=True)
    ]
    keys, values = (torch.cat(part, 1).repeat_interleave(HEADS // KV, 0) for part in parts)
    return scaled_dot_product_attention(query, keys, values, scale=0.3)


def attended(cache: SharedCache, rows: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A step of random queries, keys and values, of which some rows are taken: these, and the attention."""
    query, key, value = (torch.randn(9, heads, 1, SIZE)[rows] for heads in (HEADS, KV, KV))
    found = cache.attend(0, query, key, value, 0.3, 0.0)
    cache.columns = cache.columns + 1
    return query, key, value, found


def test_a_step_attends_to_the_prompt_and_to_its_own_tokens() -> None:
    torch.manual_seed(0)
    cache = read([5, 9, 2]).cache(2, 9)
    history: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(6)]
    for column in range(WIDTH + 2):  # the width doubles once
        cache.reserve(column + 1)
        query, key, value, found = attended(cache, list(range(6)))
        for row in range(6):
            history[row].append((key[row], value[row]))
        assert found.shape == query.shape
    for row in range(6):
        assert torch.allclose(found[row], expected(cache, row // 2, query[row], history[row]), atol=1e-6)
    # Two slots to a prompt, and the prompts' part as it was.
    assert cache.prompts[0][0].shape == (3, KV, 9, SIZE)
    assert cache.own[0][0].shape == (3, KV, 2, 2 * WIDTH, SIZE)


def test_a_prompt_that_enters_sees_nothing_of_the_one_before() -> None:
    torch.manual_seed(0)
    cache = read([5, 3]).cache(2, 9)  # there is room for a prompt of 9
    history: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(4)]
    for step in range(4):
        if step == 2:
            longer = read([9, 2])
            cache.enter(1, longer.alone(0))
            assert cache.columns.tolist() == [2, 0]
            history[2:] = [[], []]
        query, key, value, found = attended(cache, list(range(4)))
        for row in range(4):
            history[row].append((key[row], value[row]))
    assert [len(rows) for rows in history] == [4, 4, 2, 2]
    for row in range(4):
        assert torch.allclose(found[row], expected(cache, row // 2, query[row], history[row]), atol=1e-6)
    cache.enter(0, longer.alone(1))  # a shorter one leaves nothing of a longer one to see
    query, key, value, found = attended(cache, list(range(4)))
    assert torch.allclose(found[0], expected(cache, 0, query[0], [(key[0], value[0])]), atol=1e-6)


def batch_of(prompts: ReadPrompts, width: int) -> Slots:
    """G = ``width`` completions of each prompt."""
    count = len(prompts.padding)
    parts = [range(place * width, (place + 1) * width) for place in range(count)]
    return Slots.of(prompts, parts, width, prompts.padding.shape[1], NONE)


def alive(batch: Slots) -> list[list[int]]:
    return [[slot for slot, row in enumerate(rows) if row != NONE] for rows in batch.held.tolist()]


def end(batch: Slots, *rows: int) -> None:
    batch.held = batch.held.masked_fill(torch.isin(batch.held, torch.tensor(rows)), NONE)


def test_rows_that_leave_take_nothing_of_the_others_along() -> None:
    torch.manual_seed(0)
    batch = batch_of(read([5, 9, 2]), 3)
    history: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(9)]

    def advance() -> tuple[Tensor, Tensor]:
        held = batch.held.flatten().tolist()
        query, key, value, found = attended(batch.cache, [row % 9 for row in held])
        for place, row in enumerate(held):
            if row != NONE:
                history[row].append((key[place], value[place]))
        return query, found

    advance()
    end(batch, 1)
    batch.shrink(alive(batch), NONE, int)
    assert batch.held.tolist() == [[0, NONE, 2], [3, 4, 5], [6, 7, 8]]  # 3 x 3 slots are still needed
    advance()
    end(batch, 3, 4, 5, 6)
    batch.shrink(alive(batch), NONE, int)
    assert batch.held.tolist() == [[0, 2], [7, 8]]  # 4 of 9 slots
    assert (batch.start.tolist(), len(batch.columns)) == ([5, 2], 2)
    advance()
    end(batch, 8)
    batch.shrink(alive(batch), NONE, int)
    assert batch.held.tolist() == [[0, 2], [7, NONE]]
    end(batch, 0)
    batch.shrink(alive(batch), NONE, int)
    assert batch.held.tolist() == [[2], [7]]
    query, found = advance()
    for place, row in enumerate((2, 7)):
        assert torch.allclose(
            found[place], expected(batch.cache, place, query[place], history[row]), atol=1e-6
        )


def test_a_batch_of_set_sizes_is_filled_up_with_slots_for_none() -> None:
    batch = batch_of(read([4] * 6), 4)
    end(batch, *(row for row in range(24) if row not in (1, 9, 10, 17)))
    batch.shrink(alive(batch), NONE, lambda wanted: 1 << (wanted - 1).bit_length())
    # Three prompts of two slots at most: four prompts of two.
    assert batch.held.tolist() == [[1, NONE], [9, 10], [17, NONE], [NONE, NONE]]
    assert batch.cache.own[0][0].shape == (4, KV, 2, WIDTH, SIZE)


def test_what_waits_is_cut_by_prompts_and_where_a_group_is_too_large_within_it() -> None:
    parts, places = parts_of_prompts(3, 4, None)
    assert (list(parts), places) == ([range(0, 4), range(4, 8), range(8, 12)], 3)
    assert parts_of_prompts(3, 4, 11)[1] == 2
    parts, places = parts_of_prompts(2, 5, 2)
    assert (list(parts), places) == (
        [range(0, 2), range(2, 4), range(4, 5), range(5, 7), range(7, 9), range(9, 10)],
        1,
    )
