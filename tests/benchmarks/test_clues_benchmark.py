from pathlib import Path

from clues import curve, hard_questions


def test_the_looks_cost_no_more_than_one(tmp_path: Path) -> None:
    asked = hard_questions(tmp_path, 2, seconds=8.0)
    assert all(0.5 <= truth.length <= 1.0 for _, truth in asked)
    one, two = curve("builtin:tiny", asked, 8.0, frames=16, rounds=1)
    assert (one.rounds, one.tokens) == (0, 8.0)  # two frames a token
    assert two.rounds == 1
    assert 4.0 <= two.tokens <= one.tokens
    assert all(0 <= point.miou <= 1 for point in (one, two))
