"""How completions are shared out among passes."""

from hypothesis import given
from hypothesis import strategies as st

from vcr1.policy.budget import plan_passes


def members(
    prompts: list[int], completions: list[list[int]], budget: int | None
) -> list[dict[int, list[int]]]:
    return [one.members for one in plan_passes(prompts, completions, budget)]


def test_without_a_budget_all_go_together() -> None:
    assert members([10, 20], [[5, 5], [1, 2]], None) == [{0: [0, 1], 1: [0, 1]}]


def test_a_pass_is_filled_up_and_a_prompt_counts_once_in_it() -> None:
    # 10 + 5 + 5 = 20; 20 + 1 more would be 41, 20 + 1 + 2 = 23 fit alone.
    assert members([10, 20], [[5, 5], [1, 2]], 40) == [{0: [0, 1]}, {1: [0, 1]}]
    assert members([10, 20], [[5, 5], [1, 2]], 41) == [{0: [0, 1], 1: [0]}, {1: [1]}]


def test_a_long_group_is_cut_and_its_prompt_counts_again() -> None:
    # 10 + 6 + 6 = 22, and 10 + 6 = 16.
    assert members([10], [[6, 6, 6]], 22) == [{0: [0, 1]}, {0: [2]}]


def test_what_fits_nowhere_goes_alone() -> None:
    assert members([10, 5], [[6], [1]], 3) == [{0: [0]}, {1: [0]}]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.lists(st.integers(1, 20), min_size=1, max_size=5)), min_size=1),
    st.integers(1, 120),
)
def test_every_completion_goes_once_and_no_pass_exceeds_the_budget_without_need(
    groups: list[tuple[int, list[int]]], budget: int
) -> None:
    prompts, completions = [stem for stem, _ in groups], [lengths for _, lengths in groups]
    passes = members(prompts, completions, budget)
    found = [(prompt, number) for one in passes for prompt, numbers in one.items() for number in numbers]
    assert found == [
        (prompt, number) for prompt, group in enumerate(completions) for number in range(len(group))
    ]
    for one in passes:
        tokens = sum(
            prompts[prompt] + sum(completions[prompt][number] for number in numbers)
            for prompt, numbers in one.items()
        )
        assert tokens <= budget or sum(map(len, one.values())) == 1
