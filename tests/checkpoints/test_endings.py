"""What a run says when the machine ends it."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vcr1.checkpoints import explained
from vcr1.errors import UserError
from vcr1.reporting.loggers import keep_metrics


def checkpoint(folder: Path) -> Path:
    path = folder / "checkpoints" / "step-3.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"global_step": 3}, path)
    return path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_place_that_cannot_be_written_is_named_with_the_last_good_checkpoint(
    tmp_path: Path, number: int, wrapped: bool
) -> None:
    path = checkpoint(tmp_path)
    error: Exception = OSError(number, "it cannot be", str(tmp_path / "metrics.csv"))
    if wrapped:
        try:
            raise RuntimeError("the logger failed") from error
        except RuntimeError as outer:
            error = outer
    said = str(explained(error, tmp_path))
    assert said.startswith(f"{tmp_path / 'metrics.csv'}: it cannot be. ")
    assert f"the last good checkpoint is {path}" in said
    assert "ckpt_path=auto goes on" in said


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    error = FileNotFoundError(errno.ENOENT, "No such file", str(folder / "metrics.csv"))
    assert str(explained(error, folder)).startswith(f"run_dir={folder} is gone")
    folder.mkdir()
    assert explained(error, folder) is None  # another file: a fault of the program


class Dies(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_decoding_process_that_was_killed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Dies(), num_workers=1))
    said = str(explained(caught.value, tmp_path))
    assert said.startswith("a decoding process (")
    assert "lower data.loader.num_workers" in said
    assert "there is no checkpoint yet" in said


def test_a_port_in_use_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "1234")
    error = torch.distributed.DistNetworkError("The server socket has failed ... (errno: 98 - EADDRINUSE).")
    assert "MASTER_PORT=1234 is in use" in str(explained(error, tmp_path))


def test_faults_of_the_program_keep_their_stack(tmp_path: Path) -> None:
    assert explained(KeyError("x"), tmp_path) is None
    fault = UserError("x")
    assert explained(fault, tmp_path) is fault


def test_a_table_that_a_full_disk_left_empty_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("")
    keep_metrics(tmp_path / "metrics.csv", 5)
    assert not (tmp_path / "metrics.csv").exists()


WATCHED = """
import subprocess, sys, time
from vcr1.distributed.watchdog import Watchdog
watchdog = Watchdog(sys.argv[1]).start()
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]])
watchdog.look_after([child])
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal SIGKILL"),
        ("import os; os._exit(7)", "was ended by exit status 7"),
    ],
)
def test_the_death_of_a_rank_is_said_at_once(tmp_path: Path, does: str, says: str) -> None:
    command = [sys.executable, "-c", WATCHED, str(tmp_path), does]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    line = next(line for line in done.stderr.splitlines() if line.startswith("vcr1: rank 1 (process "))
    assert says in line
    assert "ckpt_path=auto goes on" in line
