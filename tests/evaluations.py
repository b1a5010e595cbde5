"""Whole evaluations of the tiny model, for the tests."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir
from vcr1.evaluate import evaluate

TINY = [
    "model=tiny",
    "trainer=cpu",
    "threads=1",
    "rollout.max_new_tokens=96",
    "trainer.enable_progress_bar=false",
]
SMALL = ["data.loader.eval_batch_size=5", "data.loader.num_workers=0", "evaluation.examples=1"]
GROUNDING = ["benchmark=[synthetic_grounding]", "benchmarks.synthetic_grounding.clips=6"]


def settings(world: Path, *overrides: str) -> list[str]:
    return [*TINY, *SMALL, f"data.root={world}", *overrides]


def evaluated(folder: Path, overrides: Sequence[str]) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("evaluate", overrides=[f"run_dir={folder}", *overrides])
    return evaluate(cfg)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def command(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    changed = {
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "PASSIVE",
        "COLUMNS": "100",
    }
    return subprocess.run(
        [sys.executable, "-m", "vcr1.evaluate", *overrides],
        cwd=folder,
        env={**os.environ, **changed},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
