"""What happens around training: few numbers on the bar, a folder at the end."""

import json
import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from transformers import AutoModelForImageTextToText, AutoProcessor

from vcr1.config.building import build
from vcr1.config.entry import load_config
from vcr1.config.preflight import preflight
from vcr1.config.sources import build_data
from vcr1.module import PolicyModule
from vcr1.module.update_log import UpdateLog
from vcr1.reporting.callbacks import HuggingFaceExport, ProgressBar, task_metrics
from vcr1.tasks import GroundingTask, Task, TrackingTask

SHOWN = {"reward": "train/reward", "IoU": "train/grounding/iou", "loss": "train/loss"}


def fit(small: list[str], folder: Path, callbacks: list[L.Callback], steps: int = 1) -> PolicyModule:
    """A short training of the tiny model by GRPO, with these callbacks only."""
    overrides = ["experiment=demo", *small, "algorithm.num_generations=2", f"trainer.max_steps={steps}"]
    cfg = load_config([*overrides, "trainer.enable_progress_bar=true"], folder)
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    policy = build(cfg.model)
    data = build_data(cfg, preflight(cfg), policy.encoder)
    module: PolicyModule = build(cfg.algorithm)(policy=policy)
    trainer = build(cfg.trainer)(callbacks=callbacks, logger=False, enable_checkpointing=False)
    trainer.fit(module, data.train_dataloader())
    return module


def test_the_bar_shows_each_number_with_the_update_that_it_belongs_to(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logged = {}

    def note(trainer: L.Trainer, *_: object) -> None:
        logged[str(trainer.global_step)] = tuple(
            f"{float(trainer.callback_metrics.get(name, 0)):.3f}" for name in SHOWN.values()
        )

    watch = LambdaCallback(on_train_batch_start=note, on_train_end=note)
    fit(small, tmp_path, [ProgressBar(SHOWN), watch], steps=3)
    output = "".join(capfd.readouterr())
    shown = re.findall(r"step=(\d+), reward=([\d.-]+), IoU=([\d.-]+), loss=([\d.-]+)", output)
    assert shown[-1][0] == "3"
    assert [line for line in shown if line[1:] != logged[line[0]]] == []


def test_the_bar_leaves_out_what_a_run_does_not_log() -> None:
    bar, trainer = ProgressBar({"IoU": "train/grounding/iou"}), L.Trainer(logger=False, accelerator="cpu")
    assert bar.get_metrics(trainer, L.LightningModule()) == {"step": 0}
    trainer.callback_metrics["train/grounding/iou"] = torch.tensor(0.25)
    trainer.callback_metrics["train/kl"] = torch.tensor(1.0)
    assert bar.get_metrics(trainer, L.LightningModule()) == {"step": 0, "IoU": "0.250"}


def test_each_task_says_what_the_bar_shows_of_it() -> None:
    class Twin(GroundingTask):
        name = "twin"

    class Count(GroundingTask):
        name, metric_names, shown = "count", ("closeness", "iou"), {}

    def mixture(*tasks: Task) -> Any:
        return SimpleNamespace(parts={task.name: SimpleNamespace(task=task) for task in tasks})

    assert task_metrics(None) == {}
    assert task_metrics(mixture(GroundingTask(), TrackingTask(), Count())) == {
        "IoU": "train/grounding/iou",
        "overlap": "train/tracking/iou",
        "closeness": "train/count/closeness",
    }
    both = {"grounding IoU": "train/grounding/iou", "twin IoU": "train/twin/iou"}
    assert task_metrics(mixture(GroundingTask(), Twin())) == both


def test_a_task_that_had_no_turn_in_an_update_shows_no_older_number() -> None:
    bar, trainer = ProgressBar({"IoU": "train/grounding/iou"}), L.Trainer(logger=False, accelerator="cpu")
    module: Any = L.LightningModule()
    module.update_log = UpdateLog()
    trainer.callback_metrics["train/grounding/iou"] = torch.tensor(0.25)  # Lightning's, of an earlier update
    assert bar.get_metrics(trainer, module) == {"step": 0}


def test_the_export_is_the_policy_as_trained(small: list[str], tmp_path: Path) -> None:
    target = tmp_path / "run" / "huggingface"
    target.mkdir(parents=True)
    (target / "stale.safetensors").write_text("of an older export")
    before = []
    watch = LambdaCallback(on_train_batch_end=lambda *_: before.append(sorted(target.iterdir())))
    module = fit(small, tmp_path, [HuggingFaceExport(str(target)), watch])
    assert before == [[target / "stale.safetensors"]]  # nothing happens before the end
    exported = AutoModelForImageTextToText.from_pretrained(target, dtype="auto")
    trained = module.policy.model.state_dict()
    assert exported.state_dict().keys() == trained.keys()
    assert [name for name, value in exported.state_dict().items() if not value.equal(trained[name])] == []
    ids = AutoProcessor.from_pretrained(target).tokenizer("the red square appears")["input_ids"]
    assert ids == module.policy.encoder.tokenizer("the red square appears")["input_ids"]
    assert not (target / "stale.safetensors").exists()
    assert [path.name for path in target.parent.iterdir()] == ["huggingface"]  # no scratch folder


def test_an_export_may_be_read_by_others(small: list[str], tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        fit(small, tmp_path, [HuggingFaceExport(str(tmp_path / "export"))])
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "export").iterdir()}
    assert (stat.S_IMODE((tmp_path / "export").stat().st_mode), modes) == (0o755, {0o644})
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_type"] == "qwen2_5_vl"


def test_another_module_is_not_exported(tmp_path: Path) -> None:
    trainer = L.Trainer(logger=False, accelerator="cpu")
    HuggingFaceExport(str(tmp_path / "export")).on_train_end(trainer, L.LightningModule())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refresh", [1, 20])
def test_the_bar_s_refresh_rate_is_lightning_s(refresh: int) -> None:
    assert ProgressBar({}, refresh_rate=refresh).refresh_rate == refresh
