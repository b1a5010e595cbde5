"""Whole runs that are killed or told to stop, and go on by the same command as if nothing had happened."""

import csv
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from vcr1.checkpoints import newest_checkpoint
from vcr1.checkpoints.files import read_facts
from vcr1.config.entry import load_config
from vcr1.train import train

Child = Callable[..., BaseProcess]

SETTINGS = [
    "experiment=demo",
    "task=grounding+tracking",
    "algorithm.num_generations=2",
    "algorithm.schedule=cosine",
    "algorithm.warmup_steps=3",
    "algorithm.reference_refresh=3",  # the reference moves
    "rollout.max_new_tokens=16",
    "data.loader.batch_size=1",
    "data.sources.grounding.train.limit=8",
    "data.sources.tracking.train.limit=6",
    "data.sources.grounding.val.limit=2",
    "data.sources.tracking.val.limit=2",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_epochs=2",  # 12 updates
    "trainer.val_check_interval=5",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.export=null",
    "callbacks.checkpoint.every=2",
    "logger=csv",
    "report=none",
]
UPDATES = 12


def train_on(overrides: list[str], folder: Path) -> None:
    train(load_config(overrides, folder))


def step_of(folder: Path) -> int:
    """Updates behind the newest checkpoint."""
    found = newest_checkpoint(folder / "checkpoints")
    return 0 if found is None else int(read_facts(found)["global_step"])


def kill_after(process: BaseProcess, folder: Path, step: int, delay: float) -> None:
    """Kill a run some time after it has come so far."""
    while process.is_alive() and step_of(folder) < step:
        time.sleep(0.02)
    time.sleep(delay)
    process.kill()
    process.join()


def logged(folder: Path) -> list[dict[str, str]]:
    """The table of metrics without what a clock says."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if "seconds" not in name} for row in rows]


def assert_equal(one: Any, other: Any, place: str = "checkpoint") -> None:
    """To the bit, all the way down."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, place
        assert one.equal(other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_equal(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place}.{number}")
    else:
        assert one == other, place


@pytest.mark.long
def test_a_run_that_is_killed_five_times_ends_as_if_it_had_not_been(
    small: list[str], tmp_path: Path, child: Child
) -> None:
    settings = [*small, *SETTINGS, "ckpt_path=auto"]
    whole = child(train_on, settings, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    chance, parts = random.Random(0), tmp_path / "parts"
    for number in range(5):
        process = child(train_on, settings, parts)
        kill_after(process, parts, step=2 * number + 2, delay=chance.uniform(0, 0.5))
        assert process.exitcode == -signal.SIGKILL
        assert 2 * number + 2 <= step_of(parts) < UPDATES
    last = child(train_on, settings, parts)
    last.join()
    assert last.exitcode == 0

    one, other = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (tmp_path / "whole", parts)
    )
    assert one["global_step"] == UPDATES
    assert any(name.startswith("reference.") for name in one["state_dict"])
    assert [stored["vcr1"]["config"].pop("run_dir") for stored in (one, other)] == [
        str(tmp_path / "whole"),
        str(parts),
    ]
    assert_equal(one, other)
    assert logged(tmp_path / "whole") == logged(parts)
    assert [path.name for path in (parts / "checkpoints").iterdir() if "partial" in path.name] == []


def numbers_of(folder: Path, name: str) -> list[str]:
    return [row[name] for row in logged(folder) if row["train/loss"]]


COMMAND = [
    "experiment=demo",
    "algorithm.num_generations=2",
    "rollout.max_new_tokens=16",
    "trainer.max_epochs=-1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.export=null",
    "callbacks.checkpoint.every=1000",
    "report=none",
    "ckpt_path=auto",
]


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Path]:
    """A module for runs of their own: tells the run to stop, as a scheduler would, after its third update."""
    (tmp_path / "stopping.py").write_text(
        "import os, signal\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 3 and trainer.is_global_zero:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(
    small: list[str], watcher: Path, command_line: Any, devices: int
) -> None:
    settings = [
        *small,
        *COMMAND,
        f"trainer.devices={devices}",
        "trainer.max_steps=5",
        "+callbacks.stop._target_=stopping.Stop",
    ]
    path = ":".join([str(watcher), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))])
    first = command_line(watcher, *settings, PYTHONPATH=path)
    assert first.returncode == 75, first.stderr
    (line,) = [line for line in first.stderr.splitlines() if "SIGTERM" in line]
    (folder,) = (watcher / "runs").iterdir()
    assert line == (
        f"vcr1: stopped by SIGTERM; saved: {folder / 'checkpoints' / 'step-3.ckpt'}. "
        f"The same command with ckpt_path=auto goes on"
    )
    assert "Traceback" not in first.stderr
    assert numbers_of(folder, "step") == ["0", "1", "2"]

    second = command_line(watcher, *settings, PYTHONPATH=path)
    assert second.returncode == 0, second.stderr
    assert list((watcher / "runs").iterdir()) == [folder]
    assert step_of(folder) == 5
    assert numbers_of(folder, "step") == ["0", "1", "2", "3", "4"]
    runs = [path.name.rsplit("-", 1)[1] for path in (folder / "wandb").glob("offline-run-*")]
    assert len(runs) == 2
    assert set(runs) == {(folder / ".wandb_id").read_text()}


@pytest.mark.slow
def test_shards_are_gone_on_with_on_another_number_of_ranks(
    small: list[str], tmp_path: Path, command_line: Any
) -> None:
    settings = [*small, *COMMAND[:-1], "strategy=fsdp", "logger=csv"]
    first = command_line(tmp_path, *settings, "trainer.devices=2", "trainer.max_steps=2")
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(list((folder / "checkpoints" / "step-2.ckpt").glob("*.distcp"))) == 2
    second = command_line(tmp_path, *settings, "trainer.devices=1", "trainer.max_steps=3", "ckpt_path=last")
    assert second.returncode == 0, second.stderr
    assert "trainer.devices was 2, is 1" in second.stdout + second.stderr
    assert list((tmp_path / "runs").iterdir()) == [folder]
    assert step_of(folder) == 3
    assert numbers_of(folder, "step") == ["0", "1", "2"]
