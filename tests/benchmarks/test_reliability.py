"""The campaign of `benchmarks/reliability.py` on a small scale; RELIABILITY.md has the large one."""

import random
import re
from pathlib import Path

import pytest

import reliability
from vcr1.config.choices import conf_dir

TABLE = conf_dir().parent / "benchmarks" / "RELIABILITY.md"


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [("videos", 40), ("completions", 6000), ("configs", 24)])
def test_nothing_is_found(part: str, count: int, tmp_path: Path) -> None:
    work, _ = reliability.PARTS[part]
    outcome, found = work(count, random.Random(1), tmp_path)
    assert found == []
    assert sum(outcome.values()) == count


@pytest.mark.long
def test_killed_runs_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    outcome, found = reliability.kills(8, random.Random(1), tmp_path)
    assert found == []
    assert sum(outcome.values()) == 8


def test_the_table_is_of_the_size_that_it_states() -> None:
    text = TABLE.read_text()
    for part, (_, least) in reliability.PARTS.items():
        row = re.search(rf"^\| {part} \| ([\d,]+) \| .* \| (\d+) \|$", text, re.MULTILINE)
        assert row is not None, part
        assert int(row[1].replace(",", "")) >= least
        assert row[2] == "0"
