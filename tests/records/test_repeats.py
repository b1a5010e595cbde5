"""In which order micro-batches come again."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.data import MixedDataset, MixtureSampler, Order, VideoDataset
from vcr1.records.repeats import Repeated, Repeats, ReplayBatch
from vcr1.tasks import GroundingTask


def test_a_block_is_repeated_before_the_next() -> None:
    # Two micro-batches an update, three updates per rollout; a cycle of six.
    repeats = Repeats(updates=3, block=2)
    assert repeats.cycle == 6
    new, old = False, True
    first = [(0, new), (1, new), (0, old), (1, old), (0, old), (1, old)]
    assert list(repeats.places(0, 8)) == [*first, (2, new), (3, new)]
    assert list(repeats.places(6, 3)) == [(2, new), (3, new), (2, old)]


def test_once_is_the_plain_order() -> None:
    for block in (1, 3):
        assert list(Repeats(1, block).places(4, 5)) == [(place, False) for place in range(4, 9)]
        assert Repeats(1, block).length(7) == 7


def test_an_epoch_counts_what_comes_again_and_leaves_incomplete_updates_for_the_next() -> None:
    assert Repeats(4, 1).length(7) == 28
    assert Repeats(4, 2).length(7) == 24
    assert Repeats(4, 8).length(7) == 0


def test_a_resume_within_a_cycle_samples_anew_and_repeats_what_remains() -> None:
    new, old = False, True
    # After the first of three updates: the same two prompts anew, once again, then what would have followed.
    assert list(Repeats(3, 2).places(2, 6)) == [
        *((0, new), (1, new), (0, old), (1, old)),
        *((2, new), (3, new)),
    ]
    # In the last update nothing is left to be repeated.
    assert list(Repeats(3, 2).places(4, 3)) == [(0, new), (1, new), (2, new)]
    # In the middle of an update, whose gradients are lost.
    assert list(Repeats(3, 2).places(1, 6)) == [(1, new), (0, new), (1, old), (0, old), (1, old), (2, new)]


@given(updates=st.integers(1, 4), block=st.integers(1, 4), start=st.integers(0, 40), count=st.integers(0, 40))
def test_a_queue_of_one_update_holds_what_comes_again(
    updates: int, block: int, start: int, count: int
) -> None:
    """What a module does: keep the last ``block``, and take the oldest where one comes again."""
    queue: list[int] = []
    whole = list(islice(Repeats(updates, block).places(0, 100), start, start + count))
    found = list(Repeats(updates, block).places(start, count))
    for fresh, again in found:
        if again:
            assert queue.pop(0) == fresh
        queue = [*queue, fresh][-block:]
    assert [fresh for fresh, _ in found] == [fresh for fresh, _ in whole]  # a resume changes no order


def test_what_comes_again_holds_nothing() -> None:
    task = GroundingTask()
    again = ReplayBatch(task)
    assert again.task is task
    assert (again.samples, again.clips, again.inputs, again.lost) == ([], [], [], [])
    assert again.pin_memory() is again


# ----------------------------------------------------------------------------------------- the sampler


class Nothing(VideoDataset):
    """As many samples as asked for, which nobody fetches."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def sampler(order: Order, repeats: Repeats, rank: int = 0, place: int | None = None) -> MixtureSampler:
    dataset = MixedDataset({name: Nothing(size) for name, size in order.sizes.items()})
    return MixtureSampler(dataset, order, rank, None if place is None else lambda: place, repeats)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_sampler_says_again_instead_of_keys(rank: int) -> None:
    order = Order({"a": 5, "b": 4}, {"a": 1.0, "b": 1.0}, world_size=2, seed=1)  # four micro-batches
    plain = list(sampler(order, Repeats(), rank))
    found = sampler(order, Repeats(updates=2, block=2), rank)
    names = [keys[0][0] for keys in plain]
    again = [Repeated(name) for name in names]
    assert len(plain) == 4
    assert list(found) == [*plain[:2], *again[:2], *plain[2:], *again[2:]]
    assert len(found) == 8


def test_epochs_of_repeats_follow_one_another() -> None:
    # Five micro-batches, two an update: an epoch has four fresh ones, and the next begins with the fifth.
    order = Order({"a": 5}, {"a": 1.0}, shuffle=False)
    repeats = Repeats(updates=2, block=2)

    def fresh(start: int) -> list[int]:
        return [key[0][1] for key in sampler(order, repeats, place=start) if not isinstance(key, Repeated)]

    assert fresh(0) == [0, 1, 2, 3]
    assert fresh(8) == [4, 0, 1, 2]
    one = sampler(order, repeats)
    one.set_epoch(1)
    assert [key[0][1] for key in one if not isinstance(key, Repeated)] == [4, 0, 1, 2]
