import os
from dataclasses import replace
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.records import VideoSource
from vcr1.video import FrameBudget, PatchGrid
from vcr1.video.journal import Journal
from vcr1.video.probing import Outcome, Trial

OK = Outcome("ok", "", 4.0, 8, 84, 168)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a clip")
    return Trial(VideoSource(str(path)), FrameBudget(), PatchGrid())


def write(path: Path, trial: Trial, outcome: Outcome, timeout: float = 60) -> None:
    with Journal(str(path), timeout) as journal:
        journal.add(trial, outcome)


def find(path: Path, trial: Trial, timeout: float = 60) -> Outcome | None:
    with Journal(str(path), timeout) as journal:
        return journal.find(trial)


def test_an_outcome_is_found_again(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    assert find(path, trial) is None
    write(path, trial, OK)
    assert find(path, trial) == OK
    write(path, trial, Outcome("unreadable", "the file is “empty”"))
    assert find(path, trial) == Outcome("unreadable", "the file is “empty”")  # the last line holds
    assert len(path.read_text().splitlines()) == 2


def test_another_trial_or_file_is_not_known(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, trial, OK)
    others = [
        replace(trial, budget=FrameBudget(fps=1)),
        replace(trial, grid=PatchGrid(spatial=14)),
        replace(trial, frames=8),
        replace(trial, decoder="pyav"),
        replace(trial, source=replace(trial.source, end=2.0)),
        replace(trial, source=replace(trial.source, path=str(tmp_path / "none.mp4"))),
    ]
    assert [find(path, other) for other in others] == [None] * 6
    file = Path(trial.source.path)
    state = file.stat()
    file.write_bytes(b"fetched again")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert find(path, trial) is None  # another size
    file.write_bytes(b"a clip")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert find(path, trial) is None  # another date
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert find(path, trial) == OK


def test_what_may_have_been_chance_is_tried_again(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"
    for status in ("crashed", "failed", "missing", "refused"):
        write(path, trial, Outcome(status))
    assert find(path, trial) is None
    assert path.read_text() == ""
    write(path, trial, Outcome("timeout"), timeout=60)
    assert find(path, trial, timeout=60) == find(path, trial, timeout=5) == Outcome("timeout")
    assert find(path, trial, timeout=61) is None  # it is given more time now


def test_a_torn_line_is_passed_over_and_ended(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, trial, OK)
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    assert find(path, trial) == OK
    write(path, trial, Outcome("unreadable"))
    assert find(path, trial) == Outcome("unreadable")
    assert path.read_text().splitlines()[1] == whole[:40]


def test_lines_of_another_kind_are_passed_over(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, trial, OK)
    odd = ["", "null", "[]", "{}", "3" * 5000, "[" * 100_000, '{"key": 1, "status": "ok"}', "\x00"]
    broken = path.read_text().replace('"frames": 8', '"frames": 1e999')
    path.write_bytes("\n".join([*odd, broken]).encode() + b"\xff\xfe\n" + path.read_bytes())
    assert find(path, trial) == OK


def test_without_a_file_nothing_is_kept(trial: Trial) -> None:
    with Journal(None, 60) as journal:
        journal.add(trial, OK)
        assert journal.find(trial) is None


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^check\.journal=.*cannot be read and written .* or to null"),
        Journal(str(tmp_path), 60),
    ):
        pass
