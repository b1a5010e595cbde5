"""What ranks hear of one another: in one process, with a store in memory."""

import time

from torch.distributed import HashStore

from vcr1.distributed.lifeline import Lifeline, Notice, connect


def ranks(world: int, silence: float = 60.0) -> list[Lifeline]:
    store = HashStore()
    return [Lifeline(store, rank, world, silence=silence) for rank in range(world)]


def test_as_long_as_all_give_signs_nothing_is_heard() -> None:
    everyone = ranks(3)
    for _ in range(2):
        assert [one.listen() for one in everyone] == [None, None, None]


def test_the_first_notice_is_what_all_hear() -> None:
    everyone = ranks(3)
    first, second = Notice("rank 1 failed: ValueError: boom"), Notice("rank 2: lost", faulty=True)
    assert everyone[1].announce(first, seconds=0.0) == first
    assert everyone[2].announce(second, seconds=0.0) == first
    assert [one.listen() for one in everyone] == [first, first, first]


def test_who_announces_stays_until_the_others_have_heard() -> None:
    one, other = ranks(2)
    one.announce(Notice("over"), seconds=0.0)
    assert other.listen() == Notice("over")
    one.announce(Notice("over"), seconds=3600.0)  # returns: the only other rank has heard


def test_a_rank_that_falls_silent_is_dead() -> None:
    first, second, third = ranks(3, silence=0.05)
    for one in (first, second, third):
        one.listen()
    first.listen()  # has heard a sign of the second
    time.sleep(0.1)
    notice = first.listen()
    assert notice is not None
    assert notice.text.startswith("rank 1 of 3 has died: no sign of life for 0 seconds.")
    assert third.listen() == notice


def test_a_rank_that_was_never_heard_may_still_be_starting() -> None:
    first, _ = ranks(2, silence=0.01)
    first.listen()
    time.sleep(0.05)
    assert first.listen() is None


def test_a_rank_that_has_left_is_not_dead_and_the_one_behind_it_is_watched() -> None:
    first, second, third = ranks(3, silence=0.05)
    for one in (first, second, third):
        one.listen()
    first.listen()
    second.leave()
    time.sleep(0.1)
    assert first.listen() is None  # goes over to the third
    first.listen()  # hears its sign
    time.sleep(0.1)
    assert "rank 2 of 3 has died" in str(first.listen())


class Gone:
    """A store whose process has ended."""

    def add(self, key: str, number: int) -> int:
        raise RuntimeError("Broken pipe\nframe #0")

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        raise RuntimeError("Broken pipe")


def test_a_store_that_is_gone_is_the_death_of_who_kept_it() -> None:
    one = Lifeline(Gone(), rank=1, world=2)
    assert [one.listen(), one.listen()] == [None, None]
    assert "rank 1 of 2 has lost the process that holds the ranks together" in str(one.listen())
    assert one.announce(Notice("own"), seconds=9.0) == Notice("own")
    one.leave()


def test_one_rank_alone_has_nobody_to_hear() -> None:
    assert connect() is None
