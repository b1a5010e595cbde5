"""What the embedded demo promises, shown by running it as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run_demo(folder: Path, *overrides: str) -> dict[str, Any]:
    """The report of a demo run."""
    command = [sys.executable, "-m", "vcr1.train", "experiment=demo", "logger=csv", "hydra.run.dir=run"]
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [*command, *overrides], cwd=folder, env=environment, capture_output=True, text=True, timeout=2400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return report


def scores_of(report: dict[str, Any], task: str, metric: str) -> tuple[float, float, dict[str, float]]:
    """Before, after, and what answers score that do not look."""
    blind = {name: scores[metric] for name, scores in report["baselines"][task].items()}
    return report["before"][task][metric], report["after"][task][metric], blind


@pytest.mark.slow
def test_the_demo_learns_and_proves_it(tmp_path: Path) -> None:
    report = run_demo(tmp_path)
    before, after, blind = scores_of(report, "grounding", "mIoU")
    constant = max(blind["constant"], blind["constant_per_duration"])
    assert before >= 0.485  # the base is no weaker than the one before it
    assert after - before >= 0.12
    assert after - constant >= 0.15
    assert blind["wrong_video"] <= constant
    assert report["after"]["grounding"]["format"] >= 0.98
    for picture in ("learning_curve.png", "answers.png"):
        assert (tmp_path / "run" / picture).stat().st_size > 10_000


@pytest.mark.long
def test_two_tasks_learn_together(tmp_path: Path) -> None:
    report = run_demo(tmp_path, "task=grounding+tracking", "trainer.max_epochs=1")  # half of the demo
    for task, metric, gain in (("grounding", "mIoU", 0.05), ("tracking", "AO", 0.02)):
        before, after, blind = scores_of(report, task, metric)
        assert after - before >= gain
        assert after - max(blind.values()) >= 0.15
        assert report["after"][task]["format"] >= 0.95
        for picture in (f"learning_curve_{task}.png", f"answers_{task}.png"):
            assert (tmp_path / "run" / picture).stat().st_size > 10_000
