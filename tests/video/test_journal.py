import os
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from vcr1.errors import UserError
from vcr1.records import VideoSource
from vcr1.video import DecodeLimits, FrameBudget, PatchGrid
from vcr1.video.journal import Journal
from vcr1.video.probing import Outcome, Trial

OK = Outcome("ok", "", 4.0, 8, 84, 168)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a clip")
    return Trial(VideoSource(str(path)), FrameBudget(), PatchGrid())


def journal(path: Path | None, **limits: float) -> Journal:
    return Journal(path, DecodeLimits(**limits))


def write(path: Path, trial: Trial, outcome: Outcome, **limits: float) -> None:
    journal(path, **limits).add(trial, outcome)


def find(path: Path, trial: Trial, **limits: float) -> Outcome | None:
    return journal(path, **limits).find(trial)


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
    for status in ("killed", "failed", "missing", "refused"):
        write(path, trial, Outcome(status))
    assert find(path, trial) is None
    assert not path.exists()


@pytest.mark.parametrize(("status", "limit"), [("timeout", "seconds"), ("memory", "memory")])
def test_with_a_higher_limit_it_is_tried_again(tmp_path: Path, trial: Trial, status: str, limit: str) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, trial, Outcome(status), **{limit: 60})
    assert find(path, trial, **{limit: 60}) == find(path, trial, **{limit: 5}) == Outcome(status)
    assert find(path, trial, **{limit: 61}) is None
    assert find(path, trial, **{limit: None}) is None  # type: ignore[arg-type]
    write(path, trial, Outcome("crashed"), **{limit: 60})
    assert find(path, trial, **{limit: 61}) == Outcome("crashed")  # no limit would save it


def test_what_others_write_is_found_meanwhile(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"
    reader = journal(path)
    assert reader.find(trial) is None
    write(path, replace(trial, frames=8), OK)
    assert reader.find(trial) is None
    write(path, trial, OK)
    assert reader.find(trial) == OK


def test_many_processes_write_whole_lines(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "journal.jsonl"

    def fill(first: int) -> None:
        for number in range(first, first + 50):
            write(path, replace(trial, frames=number), Outcome("crashed", "x" * 500))

    processes = [get_context("fork").Process(target=fill, args=(first,)) for first in (0, 50, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    known = journal(path)
    assert all(known.find(replace(trial, frames=number)) for number in range(150))
    assert len(path.read_text().splitlines()) == 150


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


def test_without_a_file_it_is_known_to_the_process_alone(trial: Trial) -> None:
    known = journal(None)
    known.check()
    known.add(trial, OK)
    assert known.find(trial) == OK
    assert journal(None).find(trial) is None


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^check\.journal=x: .* cannot be read and written .* another file"):
        Journal(tmp_path, DecodeLimits(), name="check.journal=x").check()
