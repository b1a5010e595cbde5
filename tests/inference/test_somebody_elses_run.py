"""A run, a checkpoint or a model from elsewhere is weights and plain values: a dozen ways in are closed."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from omegaconf import OmegaConf

from vcr1.checkpoints import find_resumed
from vcr1.checkpoints.opening import open_checkpoint
from vcr1.config.building import build, check_targets, shipped_targets
from vcr1.config.entry import load_config
from vcr1.distributed.shards import ShardReader, load_shards
from vcr1.errors import UserError
from vcr1.export import write_export
from vcr1.inference.weights import find_weights
from vcr1.policy import load_policy
from vcr1.policy.weights.saving import save_folder
from vcr1.reporting.evaluation import read_evaluation

MARK = "VCR1_TEST_CODE_RAN"


class Code:
    """Leaves a mark in the environment where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{MARK!r}] = 'yes'",)


@pytest.fixture(autouse=True)
def no_code_runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(MARK, raising=False)
    yield
    ran = os.environ.pop(MARK, None)
    assert ran is None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a checkpoint, as one gets it from somebody."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    cfg = load_config(["experiment=demo"], folder)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    state = load_policy("builtin:tiny").state_dict(prefix="policy.")
    torch.save({"global_step": 7, "state_dict": state}, folder / "checkpoints" / "step-7.ckpt")
    return folder


def change(run: Path, **model: Any) -> None:
    place = run / ".hydra" / "config.yaml"
    cfg: Any = OmegaConf.load(place)
    cfg.model = {**OmegaConf.to_container(cfg.model), **model}
    OmegaConf.save(cfg, place)


TARGETS = {
    "a command": {"_target_": "os.system", "command": "touch x"},
    "python": {"_target_": "builtins.exec", "_args_": [f"import os; os.environ[{MARK!r}] = 'yes'"]},
    "an unpickler": {"_target_": "torch.load", "f": "x", "weights_only": False},
    "numpy": {"_target_": "numpy.load", "file": "x", "allow_pickle": True},
    "a library's loader": {"_target_": "transformers.AutoModel.from_pretrained", "trust_remote_code": True},
    "a function of ours that no config names": {"_target_": "vcr1.policy.weights.saving.save_folder"},
    "hydra's own": {"_target_": "hydra.utils.get_method", "path": "os.system"},
    "within": {"lora": {"_target_": "subprocess.run", "args": ["touch", "x"]}},
    "within a list": {"freeze": [{"_target_": "subprocess.run", "args": ["touch", "x"]}]},
    "by a detour": {"_target_": "${oc.env:TARGET_OF_TEST,os.system}"},
}


@pytest.mark.parametrize("way", TARGETS)
def test_the_config_of_a_run_calls_what_our_own_configs_call(run: Path, tmp_path: Path, way: str) -> None:
    change(run, **TARGETS[way])
    with pytest.raises(UserError, match=r"config\.yaml: model.*_target_=.*; trust=true lets it run"):
        write_export(run / "checkpoints" / "step-7.ckpt", tmp_path / "out")
    with pytest.raises(UserError, match="_target_="):
        find_weights(str(run)).ready()


def test_a_run_that_one_trusts_may_name_code(run: Path, tmp_path: Path) -> None:
    change(run, _target_="vcr1.policy.weights.loading.load_policy")  # the same by another name
    with pytest.raises(UserError, match="trust=true"):
        write_export(run / "checkpoints" / "step-7.ckpt", tmp_path / "out")
    assert write_export(run / "checkpoints" / "step-7.ckpt", tmp_path / "out", trust=True).is_dir()


def test_what_is_shipped_is_allowed() -> None:
    assert "vcr1.policy.load_policy" in shipped_targets()
    check_targets(load_config(["experiment=demo", "adapter=lora"]).model, "here")
    assert not any(name.startswith(("os.", "torch.", "builtins.")) for name in shipped_targets())


@pytest.mark.parametrize("place", ["callbacks", "state_dict", "loops"])
def test_a_checkpoint_with_objects_is_refused(run: Path, place: str) -> None:
    path = run / "checkpoints" / "step-7.ckpt"
    content = torch.load(path, weights_only=True)
    content[place] = {"x": Code()}
    torch.save(content, path)
    with pytest.raises(UserError, match="trust=true"):
        open_checkpoint(path)
    with pytest.raises(UserError):
        find_weights(str(run)).ready()
    with pytest.raises(UserError, match="cannot be read"):
        find_resumed(str(path), run / "checkpoints")


def sharded(run: Path) -> Path:
    path = run / "checkpoints" / "step-8.ckpt"
    content = torch.load(run / "checkpoints" / "step-7.ckpt", weights_only=True)
    dcp.save({"state_dict": content["state_dict"], "number": 3}, checkpoint_id=path, no_dist=True)
    torch.save({"global_step": 8}, path / "meta.pt")
    return path


def test_an_index_of_shards_with_code_is_refused(run: Path) -> None:
    path = sharded(run)
    assert ShardReader(path).read_metadata().storage_data
    (path / ".metadata").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match=r"\.metadata names builtins\.exec, which is no description"):
        open_checkpoint(path)
    with pytest.raises(UserError, match="cannot be read"):
        find_resumed(str(path), run / "checkpoints")


def test_an_index_of_shards_that_leaves_its_folder_is_refused(run: Path) -> None:
    path = sharded(run)
    index = ShardReader(path).read_metadata()
    for part in index.storage_data.values():
        part.relative_path = "../../secret.distcp"
    (path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(UserError, match="which is not in its folder"):
        open_checkpoint(path)


def test_values_among_shards_are_read_as_plain_values(run: Path) -> None:
    path = sharded(run)
    state = {"number": 0}
    load_shards(state, path, alone=True)
    assert state == {"number": 3}
    dcp.save({"number": Code()}, checkpoint_id=path, no_dist=True)
    os.environ.pop(MARK, None)
    with pytest.raises(UserError, match="a shard cannot be read"):
        load_shards({"number": 0}, path, alone=True)


def test_facts_beside_shards_are_plain(run: Path) -> None:
    path = sharded(run)
    torch.save({"global_step": 8, "x": Code()}, path / "meta.pt")
    with pytest.raises(UserError, match="trust=true"):
        open_checkpoint(path)


def test_a_model_folder_with_code_runs_none(tmp_path: Path) -> None:
    policy = load_policy("builtin:tiny")
    save_folder(policy.model, policy.encoder, tmp_path / "model", None)
    place = tmp_path / "model" / "config.json"
    config = json.loads(place.read_text())
    names = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    place.write_text(json.dumps(config | {"auto_map": names}))
    (tmp_path / "model" / "code.py").write_text(f"import os\nos.environ[{MARK!r}] = 'yes'\n")
    load_policy(str(tmp_path / "model"))  # a family that is known is built by transformers itself
    place.write_text(json.dumps(config | {"auto_map": names, "model_type": "of_somebody"}))
    with pytest.raises(UserError, match=r"model\.path="):
        load_policy(str(tmp_path / "model"))


def test_weights_of_a_model_folder_are_no_pickles_with_code(tmp_path: Path) -> None:
    policy = load_policy("builtin:tiny")
    folder = tmp_path / "model"
    save_folder(policy.model, policy.encoder, folder, None)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError):
        load_policy(str(folder))


def test_the_evaluation_before_training_is_no_pickle(run: Path) -> None:
    (run / ".before.pkl").write_bytes(pickle.dumps(Code()))
    (run / ".before.json").write_bytes(pickle.dumps(Code()))
    with pytest.raises(ValueError, match="Expecting value"):
        read_evaluation((run / ".before.json").read_text(errors="replace"), {})


def test_a_build_of_our_own_config_is_not_held_up() -> None:
    assert build(load_config(["experiment=demo"]).model) is not None
