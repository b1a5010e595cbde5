from pathlib import Path

import pytest

from clues import TARGET, Point, ask_all, build_asker, hard_questions, report


@pytest.mark.long
def test_one_further_look_beats_none_at_no_more_vision_tokens(tmp_path: Path) -> None:
    asked = hard_questions(tmp_path, clips=20)
    assert len(asked) == 80
    assert all(3 <= truth.length <= 5 for _, truth in asked)
    asker = build_asker("builtin:tiny_long")
    none, one = ask_all(asker, asked, 0.7, 0), ask_all(asker, asked, 0.7, 1)
    assert (none.tokens, none.looks) == (20.0, 1.0)  # 40 frames, two a token
    assert one.tokens <= none.tokens
    assert 1 < one.looks <= 2
    assert one.miou >= none.miou + TARGET


def test_the_table_holds_means_and_gains() -> None:
    none, one = Point(0.5, 0, (0.2, 0.4), 20.0, 1.0), Point(0.7, 1, (0.5, 0.7), 19.5, 1.75)
    header, _, first, second = report([none, one]).splitlines()
    assert header.startswith("| further looks | share of the first | mIoU |")
    assert first == "| 0 | 1 | 0.300 |  | 20.0 | 1.00 |"
    # Both questions gain 0.3, and so does every resample.
    assert second == "| 1 | 0.7 | 0.600 | +0.300 (+0.300 to +0.300) | 19.5 | 1.75 |"
    assert one.miou == pytest.approx(0.6)
