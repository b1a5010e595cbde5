"""Every public argument of Lightning's Trainer works in a run, or is refused with a reason."""

import inspect
from pathlib import Path

import lightning as L
import pytest
import torch

from vcr1.config.entry import load_config
from vcr1.config.overrides import check_overrides
from vcr1.config.schema import check_config
from vcr1.config.settings import REFUSED
from vcr1.errors import UserError
from vcr1.train import train

pytestmark = pytest.mark.slow

TRIED: dict[str, list[str]] = {
    "accelerator": ["trainer.accelerator=cpu"],
    "strategy": ["trainer.strategy=auto"],
    "devices": ["trainer.devices=1"],
    "num_nodes": ["trainer.num_nodes=1"],
    "precision": ["trainer.precision=bf16-mixed"],
    "fast_dev_run": ["trainer.fast_dev_run=true"],
    "max_epochs": ["trainer.max_epochs=1", "trainer.max_steps=-1"],
    "min_epochs": ["trainer.min_epochs=1"],
    "max_steps": ["trainer.max_steps=2"],
    "min_steps": ["trainer.min_steps=1"],
    "max_time": ["trainer.max_time=00:00:05:00"],
    "limit_train_batches": ["trainer.limit_train_batches=2"],
    "limit_val_batches": ["trainer.limit_val_batches=1"],
    "val_check_interval": ["trainer.val_check_interval=1", "trainer.limit_val_batches=1"],
    "check_val_every_n_epoch": ["trainer.check_val_every_n_epoch=2"],
    "num_sanity_val_steps": ["trainer.num_sanity_val_steps=1", "trainer.limit_val_batches=1"],
    "log_every_n_steps": ["trainer.log_every_n_steps=2"],
    "enable_checkpointing": ["trainer.enable_checkpointing=false", "callbacks.checkpoint=null"],
    "enable_progress_bar": ["trainer.enable_progress_bar=false"],
    "enable_model_summary": ["trainer.enable_model_summary=true"],
    "accumulate_grad_batches": ["trainer.accumulate_grad_batches=2"],
    "gradient_clip_val": ["trainer.gradient_clip_val=0.5"],
    "gradient_clip_algorithm": ["trainer.gradient_clip_algorithm=value"],
    "deterministic": ["trainer.deterministic=true"],
    "benchmark": ["trainer.benchmark=true"],
    "inference_mode": ["trainer.inference_mode=false", "trainer.limit_val_batches=1", "report.after=true"],
    "profiler": ["trainer.profiler=simple"],
    "detect_anomaly": ["trainer.detect_anomaly=true"],
    "plugins": ["trainer.plugins=[]"],
    "sync_batchnorm": ["trainer.sync_batchnorm=true"],
    "default_root_dir": ["trainer.default_root_dir=elsewhere"],
    "enable_autolog_hparams": ["trainer.enable_autolog_hparams=false"],
}
PUBLIC = [name for name in inspect.signature(L.Trainer.__init__).parameters if name != "self"]
SMALL = [
    "experiment=demo",
    "logger=csv",
    "report=none",
    "report.before=false",
    "report.wrong_video=false",
    "callbacks.progress=null",
    "callbacks.export=null",
    "algorithm.num_generations=2",
    "trainer.max_epochs=-1",
    "trainer.max_steps=1",
    "trainer.val_check_interval=null",
    "trainer.limit_val_batches=0",
]


def test_every_argument_is_tried_or_refused() -> None:
    refused = {name.removeprefix("trainer.") for name in REFUSED}
    assert refused | set(TRIED) == set(PUBLIC)
    assert not refused & set(TRIED)


@pytest.mark.parametrize("name", TRIED)
def test_an_argument_works(
    name: str, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    overrides = check_overrides("train", [*small, *SMALL, *TRIED[name]])
    cfg = load_config(overrides, tmp_path / "run")
    check_config(cfg)
    try:
        train(cfg)
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
    if name not in ("fast_dev_run", "log_every_n_steps"):
        lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
        assert "train/loss" in lines[0]
        assert len(lines) >= 2


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(TRIED)))
def test_an_argument_is_refused_with_a_reason(name: str) -> None:
    value = "2" if name.startswith(("limit", "overfit", "reload")) else "true"
    (override,) = check_overrides("train", [f"trainer.{name}={value}"])
    with pytest.raises(UserError) as caught:
        check_config(load_config(["experiment=demo", override]))
    assert str(caught.value).startswith(f"trainer.{name}=")
    assert REFUSED[f"trainer.{name}"] in str(caught.value)
