"""The tables of docs/answers.md say what the parsers do."""

import re
from pathlib import Path

import pytest

from vcr1.records import Interval, ParseFailure
from vcr1.scoring.parsing import parse_boxes, parse_class, parse_interval, parse_option

PAGE = (Path(__file__).parents[3] / "docs" / "answers.md").read_text(encoding="utf-8")
ROWS = [
    (section.split("\n")[0].split()[0], written, read)
    for section in PAGE.split("\n## ")[1:]
    for written, read in re.findall(r"^\| `(.*)` \| (.*) \|$", section, re.MULTILINE)
]
OPTIONS = ("a dog", "a cat", "vitamin C", "both A and B")
TWO_BOXES = ".1 .2 .4 .6, .2 .2 .5 .6"


def shown(value: object) -> str:
    """A value as the page shows it."""
    if isinstance(value, ParseFailure):
        return "refuse"
    if isinstance(value, Interval):
        return f"{value.start:g} {value.end:g}"
    if isinstance(value, tuple):
        rows = ["-" if not b.area else f"{b.x0:g} {b.y0:g} {b.x1:g} {b.y1:g}" for b in value]
        return ", ".join(rows).replace("0.", ".").replace(TWO_BOXES, "=")
    return str(value)


PARSERS = {
    "Spans": parse_interval,
    "Boxes": lambda text: parse_boxes(text, 2),
    "Options": lambda text: parse_option(text, OPTIONS),
    "Classes": lambda text: parse_class(text, ("low quality", "high quality")),
}


@pytest.mark.parametrize(("section", "written", "read"), ROWS)
def test_the_page_says_what_is_read(section: str, written: str, read: str) -> None:
    assert shown(PARSERS[section](f"<answer>{written}</answer>")) == read


def test_every_section_has_rows() -> None:
    assert {section for section, _, _ in ROWS} == set(PARSERS)
