"""What ``make demo`` promises, shown by running it as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_learns_and_proves_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vcr1.train", "experiment=demo", "logger=csv", "hydra.run.dir=run"]
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    before, after, baselines = report["before"], report["after"], report["baselines"]
    constants = [baselines["constant"]["mIoU"], baselines["constant_per_duration"]["mIoU"]]
    assert after["mIoU"] >= 0.50
    assert after["mIoU"] - before["mIoU"] >= 0.12
    assert after["mIoU"] - max(constants) >= 0.15
    assert baselines["wrong_video"]["mIoU"] <= max(constants)
    assert after["format"] >= 0.98
    for picture in ("learning_curve.png", "timelines.png"):
        assert (tmp_path / "run" / picture).stat().st_size > 10_000
