"""A trained and exported checkpoint in the real lmms-eval; run by `make lmms`, which makes its environment.

No part of `make test`: lmms-eval does not install beside vcr1, and its own environment takes 7 GB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest
import torch
from lmms_cases import FPS, SIDE, TASKS, vcr1_inputs
from published import placed

from vcr1.policy import VideoPolicy, load_policy
from vcr1.records import PromptInputs

LMMS_PYTHON = Path(os.environ.get("LMMS_PYTHON", TASKS.parents[1] / ".venv-lmms" / "bin" / "python"))
BF16_STEP = 0.125
"""Between 16 and 32, where the largest logits of the tiny model lie, bfloat16 knows every eighth."""


def run(folder: Path, *command: str | Path) -> str:
    """What a command says; an error shows all of it."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "200",
    }
    own = {"HOME": str(folder), "HF_HOME": str(folder / "huggingface"), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **offline, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def exported(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `vcr1.export` makes of a run of two updates."""
    folder = tmp_path_factory.mktemp("trained")
    few = ["algorithm.num_generations=2", "trainer.max_steps=2", "report=none", "logger=csv"]
    train = [*small, *few, "hydra.run.dir=run"]
    run(folder, sys.executable, "-m", "vcr1.train", "experiment=demo", *train)
    run(folder, sys.executable, "-m", "vcr1.export", "checkpoint=run", "out=model", "dtype=bfloat16")
    return folder / "model"


@pytest.fixture(scope="module")
def evaluated(exported: Path, questions_folder: Path) -> tuple[Path, dict[str, float]]:
    """The log of samples that lmms-eval wrote, and its metrics."""
    assert LMMS_PYTHON.is_file(), f"{LMMS_PYTHON} is missing; `make lmms` makes it"
    pixels = SIDE**2
    settings = f"device=cpu,device_map=cpu,fps={FPS},min_pixels={pixels},max_pixels={pixels}"
    task = ["--include_path", TASKS, "--tasks", "vcr1_grounding"]
    model = ["--model", "qwen2_5_vl", "--model_args", f"pretrained={exported},{settings}"]
    output = ["--batch_size", "1", "--output_path", "results", "--log_samples"]
    run(questions_folder, LMMS_PYTHON, TASKS / "run.py", *model, *task, *output)
    (log,) = (questions_folder / "results").rglob("*_samples_vcr1_grounding.jsonl")
    (file,) = (questions_folder / "results").rglob("*_results.json")
    found = json.loads(file.read_text())["results"]["vcr1_grounding"]
    names = ("mIoU", "R@0.3", "R@0.5", "R@0.7", "format")
    return log, {name: found[f"{name},none"] for name in names}


def answers(log: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, log.read_text().splitlines())}


@torch.no_grad()
def shortfall(policy: VideoPolicy, inputs: PromptInputs, text: str) -> float:
    """How far the logit of a completion's token lies below the largest one, at most, in float32."""
    completion = torch.tensor([policy.encoder.completion_ids(text)])
    whole = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], completion], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(completion)], 1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(completion)], 1),
    }
    policy.model.model.rope_deltas = None
    logits = policy.model(**placed(policy.model, whole)).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
    chosen = logits.gather(1, completion[0][:, None])[:, 0]
    return float((logits.max(-1).values - chosen).max())


def test_every_token_is_the_one_that_vcr1_would_choose(
    exported: Path,
    evaluated: tuple[Path, dict[str, float]],
    questions: ModuleType,
) -> None:
    # lmms-eval always computes in bfloat16: its choice between logits a step or two of that type apart is
    # chance. Everything else (frames, times, chat, weights) has to agree.
    policy = load_policy(str(exported), dtype="float32").eval()
    samples, rows = questions.samples(), answers(evaluated[0])
    assert list(rows) == list(samples)
    inputs = vcr1_inputs(policy, questions)
    assert [row["input"] for row in rows.values()] == [questions.prompt({"id": id_}) for id_ in samples]
    short = [shortfall(policy, *pair) for pair in zip(inputs, texts(rows), strict=True)]
    assert max(short) <= 2 * BF16_STEP
    assert sum(one == 0 for one in short) >= len(short) // 2
    # The same answers to the next question, which may happen to fit: the check can fail.
    other = [shortfall(policy, *pair) for pair in zip(inputs[1:], texts(rows)[:-1], strict=True)]
    assert median(other) > 8 * BF16_STEP


def texts(rows: dict[str, dict[str, Any]]) -> list[str]:
    return [row["completion"] for row in rows.values()]


def test_its_metrics_are_those_of_vcr1_score_on_its_log(
    evaluated: tuple[Path, dict[str, float]], questions_folder: Path
) -> None:
    log, metrics = evaluated
    given = [
        "task=grounding",
        "annotations=data/grounding/val.jsonl",
        f"predictions={log}",
        "hydra.run.dir=scored",
    ]
    run(questions_folder, sys.executable, "-m", "vcr1.score", *given)
    found = json.loads((questions_folder / "scored" / "metrics.json").read_text())["grounding"]
    assert found["samples"] == 12
    assert found["failures"] == {}
    assert {name: one["value"] for name, one in found["metrics"].items()} == pytest.approx(metrics)
    assert 0.2 < metrics["mIoU"] < 1.0
