from pathlib import Path

from evaluation import held_out, in_groups, one_by_one


def test_groups_and_the_plain_loop_give_the_same_answers(world: Path) -> None:
    benchmark = held_out(world, clips=6)
    del benchmark.samples[6:]
    expected = one_by_one(benchmark)()
    assert len(expected) == 6
    assert all(expected.values())
    assert in_groups(benchmark, size=4)() == expected
