"""A run that has come to a halt, and an error on one of two ranks: each in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.distributed import TCPStore

from vcr1.distributed.watchdog import Heartbeats, Watchdog
from vcr1.errors import UserError

PROCESS = """
import sys, time
from vcr1.errors import UserError
from vcr1.distributed.watchdog import Watchdog

kind, folder = sys.argv[1:]
dog = Watchdog(folder, minutes=0.02, silence=30).start()
if kind == "halt":
    dog.beat("the evaluation")
    dog.rest()
    time.sleep(3)
    print("rested", file=sys.stderr, flush=True)
    dog.beat("the batch before")
    time.sleep(60)
if kind == "fault":
    error = UserError("data.root=there: no such folder")
    print(f"vcr1: {error}", file=sys.stderr)
    dog.report(error)
    dog.close()
    sys.exit(2)
if kind == "wait":
    time.sleep(60)
dog.close()
"""


def start(kind: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", PROCESS, kind, str(folder)]
    return subprocess.Popen(command, env=os.environ | path | environment, stderr=subprocess.PIPE, text=True)


def two_ranks(folder: Path, first: str, second: str) -> tuple[list[int], list[str]]:
    """Exit codes, and what is said, of two ranks that torchrun would have started."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    elastic = {
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": "2",
    }
    ranks = [start(kind, folder, RANK=str(rank), **elastic) for rank, kind in enumerate((first, second))]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    return [rank.returncode for rank in ranks], said


HALT = "has come to a halt: nothing moved for watchdog.minutes=0.02 after the batch before"


@pytest.mark.slow
def test_a_halt_leaves_the_stacks_and_ends_the_run_and_a_rest_does_not(tmp_path: Path) -> None:
    halted = start("halt", tmp_path)
    said = halted.communicate(timeout=120)[1]
    assert halted.returncode == 1
    assert said.startswith(f"rested\nvcr1: this run {HALT}")
    for text in (said, (tmp_path / "stacks-rank-0.txt").read_text()):
        assert 'File "<string>", line 14 in <module>' in text  # where it sleeps


@pytest.mark.slow
def test_the_halt_of_one_rank_leaves_the_stacks_of_all(tmp_path: Path) -> None:
    codes, said = two_ranks(tmp_path, "wait", "halt")
    assert codes == [1, 1]
    assert [HALT in text and "most recent call first" in text for text in said] == [True, True]
    lines = {
        path.name: re.findall(r'"<string>", line (\d+)', path.read_text()) for path in tmp_path.iterdir()
    }
    assert lines == {"stacks-rank-0.txt": ["22"], "stacks-rank-1.txt": ["14"]}


@pytest.mark.slow
def test_a_fault_of_the_user_s_on_one_rank_is_one_line_on_all(tmp_path: Path) -> None:
    codes, said = two_ranks(tmp_path, "wait", "fault")
    assert codes == [2, 2]
    assert said[1] == "vcr1: data.root=there: no such folder\n"
    assert re.fullmatch(r"vcr1: rank 1 of 2 on \S+: data\.root=there: no such folder\n", said[0])
    assert list(tmp_path.iterdir()) == []


class Beats(Watchdog):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.noted: list[str] = []

    def beat(self, what: str) -> None:
        self.noted.append(what)

    def rest(self) -> None:
        self.noted.append("rest")


@pytest.mark.parametrize("use", ["fit", "validate", "predict"])
def test_batches_of_every_kind_and_checkpoints_are_beats(tmp_path: Path, use: str) -> None:
    dog = Beats()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        callbacks=[Heartbeats(dog)],
        accelerator="cpu",
        max_steps=2,
        limit_val_batches=1,
        limit_predict_batches=1,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    getattr(trainer, use)(BoringModel())
    stage = {"fit": "train", "validate": "validation", "predict": "predict"}[use]
    assert f"on_{stage}_batch_start at step 0" in dog.noted
    assert (f"on_{stage}_batch_end at step {2 if use == 'fit' else 0}") in dog.noted
    assert dog.noted[-1] == "rest"
    if use == "fit":
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        assert dog.noted[-1] == "on_save_checkpoint at step 2"


@pytest.mark.parametrize(("setting", "value"), [("minutes", -1), ("minutes", "soon"), ("silence", 1)])
def test_times_that_cannot_be_are_named(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^watchdog\.{setting}={value} is no number"):
        Watchdog("nowhere", **{setting: value})
