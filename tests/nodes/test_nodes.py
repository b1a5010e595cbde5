"""Two nodes of one process each, started by two torchruns on this machine."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FEW = [
    "experiment=demo",
    "trainer.num_nodes=2",
    "trainer.max_steps=2",
    "algorithm.num_generations=2",
    "rollout.max_new_tokens=8",
    "callbacks.progress=null",
    "callbacks.export=null",
    "callbacks.checkpoint=null",
    "+trainer.enable_checkpointing=false",
    "trainer.enable_progress_bar=false",
    "report=none",
    "report.before=false",
    "report.after=false",
    "report.wrong_video=false",
]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(folder: Path, node: int, port: int, overrides: list[str]) -> subprocess.Popen[str]:
    torchrun = ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_"))}
    ours = {
        "HOME": str(folder),
        "NETRC": str(folder / "netrc"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "vcr1.train", *overrides],
        cwd=folder,
        env=kept | ours,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *overrides: str, late: float = 0.0) -> tuple[list[int], list[str]]:
    """Exit codes and output of both nodes; the second is started ``late`` seconds after the first."""
    port, nodes = free_port(), []
    try:
        for node in (0, 1):
            nodes.append(start(folder, node, port, list(overrides)))
            time.sleep(late if node == 0 else 0)
        outputs = [node.communicate(timeout=150)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    return [node.returncode for node in nodes], outputs


def trouble(folder: Path, kind: str, rank: int = 1) -> str:
    return f"+callbacks.trouble={{_target_: trouble.Trouble, folder: {folder}, kind: {kind}, rank: {rank}}}"


def test_two_nodes_learn_one_model_in_one_folder(small: list[str], tmp_path: Path) -> None:
    codes, outputs = run(tmp_path, *FEW, *small, trouble(tmp_path, "none"), late=1.5)
    assert codes == [0, 0], outputs
    (run_folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"demo-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", run_folder.name)
    weights = {path.name: path.read_text() for path in tmp_path.glob("weights-of-*")}
    assert sorted(weights) == ["weights-of-0-of-2", "weights-of-1-of-2"]
    assert len(set(weights.values())) == 1
    assert len(list((run_folder / "wandb").glob("offline-run-*"))) == 1
    files = {path.name for path in run_folder.iterdir()}
    # Of the second rank there is a log of warnings, and nothing else.
    assert [name for name in files if "rank" in name] == ["train_rank_1.log"]
    assert {".hydra", "metrics.csv", "report.json", "report.md", "train.log"} <= files
    assert json.loads((run_folder / "report.json").read_text())["steps"] == 2
    assert [output.count("Everything is in") for output in outputs] == [1, 0]


def stacks(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("runs/*/stacks-rank-*.txt")}


def test_a_rank_that_fails_ends_the_others_with_its_own_error(small: list[str], tmp_path: Path) -> None:
    codes, (first, second) = run(tmp_path, *FEW, *small, "logger=csv", trouble(tmp_path, "raise"))
    assert 0 not in codes
    here = f"vcr1: rank 1 of 2 on {socket.gethostname()} failed:"
    assert f"{here} ValueError: boom at the second batch" in first
    assert "ValueError" in second[: second.index("boom at the second batch")]
    # What is said first is the error, on the rank that has it and on the one that waits for it.
    assert re.search(r"^(vcr1:|.*Error).*", second, re.MULTILINE)[0] == here  # type: ignore[index]
    assert re.search(r"^(vcr1:|.*Error).*", first, re.MULTILINE)[0].startswith(here)  # type: ignore[index]
    assert list(stacks(tmp_path)) == ["stacks-rank-0.txt"]


def test_the_death_of_the_first_rank_ends_the_others(small: list[str], tmp_path: Path) -> None:
    settings = ["logger=csv", "watchdog.silence=8", trouble(tmp_path, "kill", rank=0)]
    codes, (_, second) = run(tmp_path, *FEW, *small, *settings)
    assert 0 not in codes
    died = r"vcr1: rank (0 of 2 has died|1 of 2 has lost the process that holds the ranks together)"
    assert re.search(died, second), second
    assert list(stacks(tmp_path)) == ["stacks-rank-1.txt"]
