"""What `checkpoint=` names in evaluation and prediction: models as they are, and trainings' checkpoints."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from vcr1.config.building import build
from vcr1.config.choices import conf_dir
from vcr1.config.entry import load_config
from vcr1.errors import UserError
from vcr1.evaluate import evaluate
from vcr1.inference import weights
from vcr1.inference.weights import find_weights
from vcr1.policy import load_policy
from vcr1.policy.weights.lora import merged_state
from vcr1.policy.weights.saving import save_folder
from vcr1.predict import predict
from vcr1.video import build_world

SMALL = ["data.loader.eval_batch_size=5", "data.loader.num_workers=0", "evaluation.examples=0"]


def run_of(folder: Path, *overrides: str) -> dict[str, Tensor]:
    """A run's folder with a checkpoint, without training; returns the weights that an export must hold."""
    cfg = load_config(["experiment=demo", *overrides], folder)
    torch.manual_seed(0)
    policy = build(cfg.model)
    with torch.no_grad():
        for one in policy.parameters():
            if one.requires_grad:
                one.add_(torch.randn_like(one) * 1e-3)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    (folder / "checkpoints").mkdir()
    content = {"state_dict": dict(policy.state_dict(prefix="policy.")), "global_step": 7}
    torch.save(content, folder / "checkpoints" / "step-7.ckpt")
    (folder / "checkpoints" / "last.ckpt").symlink_to("step-7.ckpt")
    return dict(merged_state(policy.model))


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A run's folder with a checkpoint of all weights, and these."""
    return tmp_path / "run", run_of(tmp_path / "run")


def holds(folder: str | None, expected: dict[str, Tensor]) -> bool:
    found = load_policy(str(folder)).model.state_dict()
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], one) for name, one in expected.items())


def test_a_checkpoint_is_exported_once_and_anew_when_it_has_changed(
    run: tuple[Path, dict[str, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vcr1.inference.weights")
    folder, expected = run
    file = folder / "checkpoints" / "step-7.ckpt"
    first = find_weights(str(file))
    assert not (folder / "exports").exists()  # nothing is written until it is asked for
    origin = first.ready()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin == {"path": str(file), "step": 7, "digest": digest}
    assert holds(first.path, expected)
    assert len(caplog.messages) == 1
    assert "step-7.ckpt" in caplog.text
    # By whatever name, it is there now.
    for name in (file, folder, folder / "checkpoints", folder / "checkpoints" / "last.ckpt"):
        again = find_weights(str(name))
        assert (again, again.ready()) == (first, origin)
    assert len(caplog.messages) == 1
    os.utime(file, (1, 1))
    changed = find_weights(str(folder))
    assert changed.path != first.path
    changed.ready()
    assert {path.name for path in (folder / "exports").iterdir()} == {
        ".lock",
        Path(str(first.path)).name,
        Path(str(changed.path)).name,
    }


def test_adapters_are_merged_and_shards_put_together(tmp_path: Path) -> None:
    expected = run_of(tmp_path / "run", "adapter=lora", "model.lora.rank=4")
    file = tmp_path / "run" / "checkpoints" / "step-7.ckpt"
    content = torch.load(file, weights_only=True)
    shards = file.with_name("step-8.ckpt")
    dcp.save({"state_dict": content["state_dict"]}, checkpoint_id=shards, no_dist=True)
    torch.save({"global_step": 8}, shards / "meta.pt")
    for name, step in ((file, 7), (shards, 8)):
        found = find_weights(str(name))
        origin = found.ready()
        assert origin is not None
        assert origin["step"] == step
        assert holds(found.path, expected)


def test_of_several_processes_one_exports(
    run: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write: Callable[..., Path] = weights.write_export

    def counted(path: Path, out: Path, **more: Any) -> Path:
        written.append(out)
        return write(path, out, **more)

    monkeypatch.setattr(weights, "write_export", counted)
    found = find_weights(str(run[0]))
    with ThreadPoolExecutor(3) as pool:  # a lock of its own each, as processes have
        origins = [future.result() for future in [pool.submit(found.ready) for _ in range(3)]]
    assert origins[0] == origins[1] == origins[2]
    assert len(written) == 1


def test_models_are_taken_as_they_are(run: tuple[Path, dict[str, Tensor]]) -> None:
    for name in ("builtin:tiny", "Qwen/Qwen2.5-VL-3B-Instruct"):
        assert find_weights(name) == weights.Weights(name)
    policy = build(load_config(["experiment=demo"]).model)
    save_folder(policy.model, policy.encoder, run[0] / "huggingface", None)
    for name in (run[0], run[0] / "huggingface"):  # before the run's checkpoints
        assert find_weights(str(name)) == weights.Weights(str(run[0] / "huggingface"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gone", "there is no such checkpoint"),
        ("cut", "the file is cut off, or no checkpoint at all"),
        ("alone", "no config of its run"),
        ("empty", "no Hugging Face model there, and neither a checkpoint nor the folder of a run"),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(
    run: tuple[Path, dict[str, Tensor]], tmp_path: Path, kind: str, reason: str
) -> None:
    file = run[0] / "checkpoints" / "step-7.ckpt"
    place = tmp_path / "other" / "a.ckpt"
    if kind != "gone":
        (place if kind == "empty" else place.parent).mkdir(parents=True)
    if kind == "cut":
        place.write_bytes(file.read_bytes()[:10_000])
    if kind == "alone":
        place.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=reason) as caught:
        find_weights(str(place))
    assert str(caught.value).startswith(f"checkpoint={place}: ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("checkpoint=") == 1


def test_what_cannot_be_exported_is_one_sentence(run: tuple[Path, dict[str, Tensor]]) -> None:
    content = torch.load(run[0] / "checkpoints" / "step-7.ckpt", weights_only=True)
    del content["state_dict"]["policy.model.model.language_model.norm.weight"]
    torch.save(content, run[0] / "checkpoints" / "step-7.ckpt")
    found = find_weights(str(run[0]))
    with pytest.raises(UserError, match=r"cannot be exported: a checkpoint of another model") as caught:
        found.ready()
    assert "vcr1.export has further options" in str(caught.value)
    assert not Path(str(found.path)).exists()


def test_evaluation_and_prediction_take_checkpoints(
    run: tuple[Path, dict[str, Tensor]], world: Path, tmp_path: Path
) -> None:
    file = run[0] / "checkpoints" / "step-7.ckpt"
    tiny = ["model=tiny", "threads=1", "rollout.max_new_tokens=24", f"checkpoint={file}"]
    asked = ["benchmark=[synthetic_grounding]", "evaluation.limit=1", f"data.root={world}", "trainer=cpu"]
    quiet = ["benchmarks.synthetic_grounding.clips=6", "trainer.enable_progress_bar=false"]
    (clip, _), *_ = build_world(world / "synthetic", "val", 6, seed=2)
    ask = [f"video={clip}", "task=[grounding]", "query=a red square", "loader=tiny"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        one = compose("evaluate", [f"run_dir={tmp_path / 'evaluation'}", *tiny, *SMALL, *asked, *quiet])
        other = compose("predict", [f"run_dir={tmp_path}", *tiny, *ask])
    assert evaluate(one) is not None
    model = json.loads((tmp_path / "evaluation" / "manifest.json").read_text())["model"]
    assert model["checkpoint"]["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert predict(other)["model"] == model["path"]
    assert Path(model["path"]).parent == run[0] / "exports"
