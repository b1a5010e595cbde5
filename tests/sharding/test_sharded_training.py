"""Two processes that share the weights against one that has them all: the same numbers."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from vcr1.policy import load_policy

RUNS = Path(__file__).with_name("runs.py")
CASES = ("full", "adapters", "lockstep", "recomputed", "offloaded", "replicated", "supervised")

pytestmark = pytest.mark.slow


def start(folder: Path, world: int, rank: int, port: int, jobs: tuple[str, ...]) -> subprocess.Popen[str]:
    ours = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if world > 1:
        ours |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    return subprocess.Popen(
        [sys.executable, str(RUNS), str(folder / "clips"), str(folder / "results"), *jobs],
        env=os.environ | ours | {"CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Wait for all; if one fails the others are ended, as they would wait for it."""
    try:
        for process in processes:
            said = process.communicate(timeout=600)[1]
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    for name in ("clips", "results"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    finish([start(folder, 1, 0, port, CASES)])  # alone, as it writes the clips
    jobs = (*CASES, "interrupt", "resume")
    finish([start(folder, 2, rank, port, jobs) for rank in (0, 1)])
    finish([start(folder, 1, 0, port, ("resume",))])
    return folder / "results"


def loaded(results: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(results / f"{name}.pt")
    return found


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    weights, others = one["weights"], other["weights"]
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_learn_what_one_process_learns(results: Path, name: str) -> None:
    one, two = loaded(results, f"{name}-1"), loaded(results, f"{name}-2")
    assert list(one["losses"]) == [1, 2, 3]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert largest_difference(one, two) <= 1e-5
    before = load_policy("builtin:tiny").model.state_dict()
    now = {key.replace(".base_layer.", "."): weight for key, weight in one["weights"].items()}
    moved = {key for key, weight in now.items() if key not in before or not torch.equal(weight, before[key])}
    # What is trained has moved, and nothing else.
    assert any(".language_model." in key for key in moved)
    assert any(".visual." in key for key in moved) == (name != "offloaded")
    assert any(".lora_B." in key for key in moved) == (name == "adapters")
    # The evaluation before counted every sample once, the lost one too.
    assert two["judged"] == one["judged"] == {"grounding": ["blue", "green", "lost", "red", "yellow"]}


@pytest.mark.parametrize("name", CASES)
def test_the_saved_folder_is_the_whole_model(results: Path, name: str) -> None:
    model = AutoModelForImageTextToText.from_pretrained(results / f"{name}-folder", dtype=torch.float32)
    saved, trained = model.state_dict(), loaded(results, f"{name}-1")["weights"]
    for key, weight in saved.items():
        if key in trained:
            torch.testing.assert_close(weight, trained[key], atol=1e-5, rtol=0.0)
    adapted = [key for key in saved if key not in trained]
    assert bool(adapted) == (name == "adapters")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpoint_of_two_ranks_is_resumed_on_any_number(results: Path, ranks: int) -> None:
    straight, resumed = loaded(results, "full-1"), loaded(results, f"resumed-{ranks}")
    assert resumed["losses"][3] == pytest.approx(straight["losses"][3], abs=1e-5)
    assert largest_difference(straight, resumed) <= 1e-5
