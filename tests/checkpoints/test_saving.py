"""A checkpoint is written whole or not at all, whatever ends the writing."""

import resource
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from diary import Diary, resume

from vcr1.checkpoints import Checkpoints, newest_checkpoint
from vcr1.checkpoints.files import read_facts
from vcr1.errors import UserError

Child = Callable[..., BaseProcess]

BALLAST = 1_000_000
"""Numbers that make a checkpoint 4 MB long."""
LIMIT = 2_000_000
"""Bytes that a file may have, in the middle of such a checkpoint."""


def train(folder: Path, steps: int) -> None:
    resume(Diary(ballast=BALLAST), Checkpoints(str(folder), every=1), max_steps=steps, max_epochs=-1)


def die_in_the_write(folder: Path) -> None:
    """The system ends a process whose file grows beyond the limit, in the midst of the write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    train(folder, 4)


def find_the_disk_full(folder: Path) -> None:
    """The write fails, as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    try:
        train(folder, 4)
    except UserError as error:
        (folder / "message").write_text(str(error))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with the checkpoints of updates 1 and 2."""
    train(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-1.ckpt", "step-2.ckpt", "last.ckpt"}
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_killed_in_the_write_leaves_the_checkpoint_before(trained: Path, child: Child) -> None:
    process = child(die_in_the_write, trained)
    process.join(60)
    assert process.exitcode == -signal.SIGXFSZ
    assert (trained / "step-3.ckpt.partial").stat().st_size == LIMIT
    assert newest_checkpoint(trained) == trained / "step-2.ckpt"
    assert read_facts(trained / "last.ckpt")["global_step"] == 2
    train(trained, 3)  # the next run cleans up
    assert {path.name for path in trained.iterdir()} == {"step-2.ckpt", "step-3.ckpt", "last.ckpt"}
    assert read_facts(trained / "last.ckpt")["global_step"] == 3


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_is_named_with_the_last_good_checkpoint(trained: Path, child: Child) -> None:
    process = child(find_the_disk_full, trained)
    process.join(60)
    assert process.exitcode == 0
    message = (trained / "message").read_text()
    assert f"checkpoint {trained / 'step-3.ckpt'}: no space (File too large)" in message
    assert f"the last good one is {trained / 'step-2.ckpt'}" in message
    assert "ckpt_path=auto" in message
    assert read_facts(trained / "step-2.ckpt")["global_step"] == 2
    assert [path.name for path in trained.iterdir() if "step-3" in path.name] == []


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_without_room_is_not_begun(trained: Path) -> None:
    with (trained / "step-2.ckpt").open("ab") as file:
        file.truncate(1 << 42)  # a file with a hole: it says 4 TB, and takes nothing
    with pytest.raises(UserError, match=r"no space: it takes 4,398,046,511,104 bytes and [\d,]+ are free"):
        resume_from_first(trained)
    assert [path.name for path in trained.iterdir() if "step-3" in path.name] == []


def resume_from_first(folder: Path) -> None:
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").symlink_to("step-1.ckpt")
    train(folder, 3)


@pytest.mark.parametrize(("every", "keep"), [(0, 2), (1, 0), (1.5, 2)])
def test_numbers_below_one_are_refused(tmp_path: Path, every: int, keep: int) -> None:
    with pytest.raises(UserError, match=r"callbacks\.checkpoint\.(every|keep)="):
        Checkpoints(str(tmp_path), every=every, keep=keep)


@pytest.mark.filterwarnings("ignore")
def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    resume(Diary(), Checkpoints(str(tmp_path / "checkpoints"), every=1), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []
