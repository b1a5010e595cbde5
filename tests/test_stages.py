"""From one stage to the next: a run begins with the weights of another, whatever form they have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from transformers import AutoModelForImageTextToText

from vcr1.config.entry import load_config
from vcr1.errors import UserError
from vcr1.export import write_export
from vcr1.policy import load_policy
from vcr1.train import train

FEW = [
    "experiment=demo",
    "logger=csv",
    "report=none",
    "report.before=false",
    "report.wrong_video=false",
    "trainer.max_epochs=-1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
]
GRPO = ["algorithm=grpo_tiny", "algorithm.num_generations=2", "trainer.max_steps=1"]
WATCHES: dict[str, Any] = {}


def watched(name: str) -> Any:
    return WATCHES[name]


def start(folder: Path, small: list[str], *overrides: str) -> dict[str, dict[str, torch.Tensor]]:
    """Train, and return the weights of policy and reference that the run began with."""
    found: dict[str, Any] = {}

    def note(trainer: Any, module: Any) -> None:
        for name in ("policy", "reference"):
            model = getattr(getattr(module, name, None), "model", None)
            if model is not None:
                found[name] = {key: value.clone() for key, value in model.state_dict().items()}

    WATCHES["start"] = LambdaCallback(on_train_start=note)
    watch = f"+callbacks.watch={{_target_: {__name__}.watched, name: start}}"
    train(load_config([*small, *FEW, *overrides, watch], folder))
    return found


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return dict(AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").state_dict())


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@pytest.fixture(scope="module")
def sft(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of supervised fine-tuning, two updates."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    start(folder, small, "algorithm=sft", "algorithm.lr=1e-3", "trainer.max_steps=2", "callbacks.export=null")
    (folder / ".hydra").mkdir()
    text = (folder / "hparams.yaml").read_text()
    assert "SFTModule" in text
    return folder


@pytest.mark.parametrize("form", ["run", "checkpoint", "checkpoints", "Hugging Face folder"])
def test_grpo_begins_with_what_supervision_has_taught(
    small: list[str], sft: Path, tmp_path: Path, form: str
) -> None:
    exported = write_export(sft / "checkpoints" / "last.ckpt", tmp_path / "model")
    expected = weights(exported)
    base = load_policy("builtin:tiny").model.state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in expected.items())
    named = {
        "run": sft,
        "checkpoint": sft / "checkpoints" / "step-2.ckpt",
        "checkpoints": sft / "checkpoints",
        "Hugging Face folder": exported,
    }[form]
    found = start(tmp_path / "grpo", small, *GRPO, f"model.path={named}")
    assert_same(found["policy"], expected)
    assert_same(found["reference"], expected)


def test_a_third_stage_has_another_algorithm_and_task(small: list[str], sft: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    start(first, small, *GRPO, f"model.path={sft}", "callbacks.export=null", "algorithm.lr=1e-3")
    expected = weights(write_export(first / "checkpoints" / "last.ckpt", tmp_path / "model"))
    found = start(
        tmp_path / "second",
        small,
        *("task=tracking", "algorithm=dapo", "algorithm.num_generations=2", "trainer.max_steps=1"),
        f"model.path={first}",
    )
    assert_same(found["policy"], expected)


def test_a_run_begins_with_adapters(small: list[str], tmp_path: Path) -> None:
    first = tmp_path / "first"
    start(
        first, small, *GRPO, "adapter=lora", "model.lora.rank=4", "algorithm.lr=1e-2", "callbacks.export=null"
    )
    checkpoint = first / "checkpoints" / "last.ckpt"
    merged = weights(write_export(checkpoint, tmp_path / "merged"))
    adapters = write_export(checkpoint, tmp_path / "adapters", adapters=True)
    assert not (adapters / "config.json").exists()
    found = start(tmp_path / "second", small, *GRPO, f"model.path={adapters}")
    assert found["policy"].keys() == merged.keys()
    for name, value in merged.items():
        assert torch.allclose(found["policy"][name], value, atol=1e-6), name
    # And with adapters of its own on top: the reference is the model that the first ones made.
    again = start(
        tmp_path / "third", small, *GRPO, f"model.path={adapters}", "adapter=lora", "model.lora.rank=2"
    )
    name = "model.language_model.layers.0.self_attn.q_proj"
    assert torch.allclose(again["policy"][f"{name}.base_layer.weight"], merged[f"{name}.weight"], atol=1e-6)


def test_a_checkpoint_of_another_algorithm_is_not_gone_on_with(
    small: list[str], sft: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"SFTModule, and this one is of vcr1\.module\.GRPOModule.*model\.path="
    ):
        start(tmp_path / "grpo", small, *GRPO, f"ckpt_path={sft / 'checkpoints' / 'last.ckpt'}")
    with pytest.raises(UserError, match=r"model\.path="):
        start(tmp_path / "grpo", small, *GRPO, f"ckpt_path={sft}")


def test_what_is_no_model_is_named_by_its_key(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"model\.path={tmp_path / 'empty'}: no Hugging Face model there"):
        start(tmp_path / "run", small, *GRPO, f"model.path={tmp_path / 'empty'}")
    assert not (tmp_path / "run").exists()


def test_a_report_is_not_overwritten_by_less(
    small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    settings = ["algorithm=sft", "algorithm.schedule=constant", "callbacks.export=null"]
    start(folder, small, *settings, "trainer.max_steps=1", "report.after=true")
    report = (folder / "report.json").read_text()
    assert '"mIoU"' in report
    start(folder, small, *settings, "trainer.max_steps=2", "report.after=false", "ckpt_path=last")
    assert (folder / "report.json").read_text() == report
    assert "report.json stays as it was" in caplog.text
    assert (folder / "checkpoints" / "step-2.ckpt").is_file()
    # A new run in the folder begins with nothing of the older one, and loses nothing of it.
    start(folder, small, *settings, "trainer.max_steps=1", "report.after=false")
    assert (folder / "aside-1" / "report.json").read_text() == report
    assert {path.name for path in (folder / "checkpoints" / "aside-1").iterdir()} == {
        "step-1.ckpt",
        "step-2.ckpt",
    }
    assert (folder / "checkpoints" / "last.ckpt").readlink() == Path("step-1.ckpt")
