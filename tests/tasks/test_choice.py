"""Options: how prompts list them and what targets name."""

from string import ascii_uppercase

import pytest

from vcr1.records import GroundedAnswer, Interval, Sample
from vcr1.tasks.choice import letters_of, list_options


def test_options_stand_on_lines_with_letters() -> None:
    assert list_options(["a dog", " a {cat} ", "(B) both"]) == "(A) a dog\n(B) a {cat}\n(C) (B) both"
    assert list_options([]) == ""


def test_an_option_stays_on_its_line() -> None:
    assert list_options(["a dog\n(B) a cat", "a\t horse\r\n"]) == "(A) a dog (B) a cat\n(B) a horse"


def test_there_are_26_letters() -> None:
    assert list_options(list(ascii_uppercase.lower())).splitlines()[-1] == "(Z) z"
    with pytest.raises(ValueError, match="27 options, but there are 26 letters"):
        list_options(["x"] * 27)


def test_letters_of_both_kinds_of_targets() -> None:
    grounded = GroundedAnswer("C", (Interval(0, 1),))
    assert letters_of([Sample("a", "v", "q", "B"), Sample("b", "v", "q", grounded)]) == ["B", "C"]
