"""One run in a folder at a time."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from vcr1.checkpoints import locked
from vcr1.errors import UserError


def hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        if os.fork() == 0:  # as a data loader's process, which may outlive its parent
            time.sleep(60)
            os._exit(0)
        held.set()
        time.sleep(60)


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    first = context.Process(target=hold, args=(tmp_path / "run", held))
    first.start()
    assert held.wait(60)
    with (
        pytest.raises(UserError, match=rf"run_dir=.*run: another run is at work.*process {first.pid} on "),
        locked(tmp_path / "run"),
    ):
        pass
    with locked(tmp_path / "other"):
        pass
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    with locked(tmp_path / "run"):  # although a child of the first is still there
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")
