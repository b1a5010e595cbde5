"""One Hugging Face folder from a checkpoint: all weights or adapters, a file or shards."""

import copy
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import ModelCard
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from vcr1.config.building import build
from vcr1.config.choices import conf_dir
from vcr1.config.entry import load_config
from vcr1.config.preflight import preflight
from vcr1.config.sources import build_data
from vcr1.errors import UserError
from vcr1.export import export, main
from vcr1.module import PolicyModule
from vcr1.policy import PromptEncoder, load_policy
from vcr1.policy.weights.loading import resolve
from vcr1.records import PromptInputs
from vcr1.reporting.card import Recipe, model_card, recipe_of

LORA = ["adapter=lora", "model.lora.rank=4"]


@dataclass
class Trained:
    """A run's folder and what was trained in it."""

    folder: Path
    module: PolicyModule
    inputs: PromptInputs

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @torch.no_grad()
    def logits(self, model: Any = None) -> Tensor:
        """Those of the trained policy, or of another model."""
        found: Tensor = (model or self.module.policy.model.eval())(**self.inputs).logits
        return found


def trained(small: list[str], folder: Path, *overrides: str) -> Trained:
    """Two updates, large enough to see, and what a run leaves behind."""
    steps = ["trainer.max_steps=2", "algorithm.warmup_steps=0", "algorithm.lr=1e-3"]
    cfg = load_config(["experiment=demo", *small, "algorithm.num_generations=2", *steps, *overrides], folder)
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    policy = build(cfg.model)
    data = build_data(cfg, preflight(cfg), policy.encoder)
    module: PolicyModule = build(cfg.algorithm)(policy=policy)
    trainer = build(cfg.trainer)(callbacks=[], logger=False, enable_checkpointing=False)
    trainer.fit(module, data.train_dataloader())
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    run = Trained(folder, module, next(iter(data.train_dataloader())).inputs[0])
    trainer.save_checkpoint(run.checkpoint)
    return run


@pytest.fixture(scope="module")
def full(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """All weights, and those of a reference that has moved."""
    return trained(small, tmp_path_factory.mktemp("runs") / "full", "algorithm.reference_refresh=1")


@pytest.fixture(scope="module")
def adapted(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Adapters alone."""
    return trained(small, tmp_path_factory.mktemp("runs") / "lora", *LORA, "algorithm.lr=1e-2")


def settings(**given: Any) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("export")
    cfg.update({name: str(value) if isinstance(value, Path) else value for name, value in given.items()})
    return cfg


def shards(run: Trained, folder: Path) -> Path:
    """The same run's folder with a checkpoint of shards, as ranks write it together."""
    shutil.copytree(run.folder / ".hydra", folder / ".hydra")
    content = torch.load(run.checkpoint, weights_only=True)
    path = folder / "checkpoints" / "last.ckpt"
    dcp.save({"state_dict": content.pop("state_dict")}, checkpoint_id=path, no_dist=True)
    content.pop("optimizer_states")
    torch.save(content, path / "meta.pt")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------------------------------- what is written


def test_all_weights_are_those_of_the_trained_policy(full: Trained, tmp_path: Path) -> None:
    saved = torch.load(full.checkpoint, weights_only=True)["state_dict"]
    assert any(name.startswith("reference.") for name in saved)
    out = export(settings(checkpoint=full.folder, out=tmp_path / "deep" / "model"))
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="auto").eval()
    assert torch.equal(full.logits(model), full.logits())
    assert not torch.equal(full.logits(load_policy("builtin:tiny").eval().model), full.logits())
    processor = AutoProcessor.from_pretrained(out)
    ids = full.module.policy.encoder.tokenizer("the red square appears")["input_ids"]
    assert processor.tokenizer("the red square appears")["input_ids"] == ids
    kept, before = GenerationConfig.from_pretrained(out), full.module.policy.model.generation_config
    assert (kept.do_sample, kept.eos_token_id) == (before.do_sample, before.eos_token_id) == (False, 2)
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_an_export_has_the_rule_of_positions_that_was_trained(full: Trained, tmp_path: Path) -> None:
    """Not that of the base, whose folder may have been replaced since."""
    content = torch.load(full.checkpoint, weights_only=True)
    assert content["text_after_video"] == "largest"
    shutil.copytree(full.folder / ".hydra", tmp_path / "run" / ".hydra")
    (tmp_path / "run" / "checkpoints").mkdir()
    other = tmp_path / "run" / "checkpoints" / "last.ckpt"
    torch.save(content | {"text_after_video": "frame"}, other)
    out = export(settings(checkpoint=other, out=tmp_path / "model"))
    assert json.loads((out / "config.json").read_text())["text_after_video"] == "frame"
    with pytest.raises(
        UserError, match=r"^the checkpoint was trained with model\.text_after_video=frame, and the b"
    ):
        full.module.on_load_checkpoint({"text_after_video": "frame"})


def test_weights_are_written_in_another_type_on_request(full: Trained, tmp_path: Path) -> None:
    out = export(settings(checkpoint=full.checkpoint, out=tmp_path / "model", dtype="bfloat16"))
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    weights = AutoModelForImageTextToText.from_pretrained(out, dtype="auto").state_dict()
    expected = full.module.policy.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name].bfloat16()) for name, tensor in weights.items())


def test_a_checkpoint_keeps_the_type_of_its_weights(full: Trained, tmp_path: Path) -> None:
    content = torch.load(full.checkpoint, weights_only=True)
    content["state_dict"] = {name: tensor.bfloat16() for name, tensor in content["state_dict"].items()}
    shutil.copytree(full.folder / ".hydra", tmp_path / "run" / ".hydra")
    torch.save(content, tmp_path / "run" / "half.ckpt")
    out = export(settings(checkpoint=tmp_path / "run" / "half.ckpt", out=tmp_path / "model"))
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


def test_adapters_are_merged(adapted: Trained, tmp_path: Path) -> None:
    out = export(settings(checkpoint=adapted.checkpoint, out=tmp_path / "model"))
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="auto").eval()
    assert not any("lora" in name for name in model.state_dict())
    # In float64: a float32 forward alone may round one sum of products and two of them 1.6e-5 apart.
    policy = copy.deepcopy(adapted.module.policy.model).eval().double()
    merged = adapted.logits(copy.deepcopy(model).double())
    torch.testing.assert_close(merged, adapted.logits(policy), atol=1e-5, rtol=1e-5)
    base = load_policy("builtin:tiny").eval().model
    assert (adapted.logits(base) - adapted.logits()).abs().max() > 1e-2


def test_adapters_alone_are_read_by_peft_and_by_transformers(adapted: Trained, tmp_path: Path) -> None:
    out = export(settings(checkpoint=adapted.checkpoint, out=tmp_path / "model", adapters=True))
    assert not (out / "model.safetensors").exists()
    base = load_policy("builtin:tiny").eval().model
    peft = PeftModel.from_pretrained(base, str(out)).eval()
    assert peft.peft_config["default"].base_model_name_or_path == "builtin:tiny"
    assert torch.equal(adapted.logits(peft), adapted.logits())
    again = load_policy("builtin:tiny").eval().model
    again.load_adapter(str(out))
    assert torch.equal(adapted.logits(again), adapted.logits())
    assert AutoProcessor.from_pretrained(out).tokenizer.eos_token == "<|im_end|>"
    assert GenerationConfig.from_pretrained(out).eos_token_id == 2


def test_the_auto_class_loads_adapters_with_the_base_that_they_name(adapted: Trained, tmp_path: Path) -> None:
    shutil.copytree(resolve("builtin:tiny"), tmp_path / "base")
    given = settings(
        checkpoint=adapted.checkpoint, out=tmp_path / "model", adapters=True, base=tmp_path / "base"
    )
    model = AutoModelForImageTextToText.from_pretrained(export(given), dtype=torch.float32).eval()
    assert torch.equal(adapted.logits(model), adapted.logits())


@pytest.mark.parametrize("kind", ["full", "adapted"])
def test_shards_give_the_same_folder(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run: Trained = request.getfixturevalue(kind)
    path = shards(run, tmp_path / "run")
    sharded = export(settings(checkpoint=path, out=tmp_path / "sharded"))
    single = export(settings(checkpoint=run.checkpoint, out=tmp_path / "single"))
    assert contents(sharded) == contents(single)


# ------------------------------------------------------------------------------------------ the model card


def test_the_card_says_what_the_model_is(full: Trained, tmp_path: Path) -> None:
    report = '{"before": {"grounding": {"mIoU": 0.25}}, "after": {"grounding": {"mIoU": 0.5}}, "steps": 2}'
    logged = {"config": {}, "git": {"commit": "0123abcd", "dirty": True}}
    run = tmp_path / "run"
    shutil.copytree(full.folder, run)
    (run / "report.json").write_text(report)
    OmegaConf.save(OmegaConf.create(logged), run / "hparams.yaml")
    card = ModelCard.load(export(settings(checkpoint=run, out=tmp_path / "model")) / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "video-text-to-text"
    assert card.data.base_model is None  # no name on the hub
    assert {"vcr1", "grpo", "grounding"} <= set(card.data.tags)
    for said in (
        "# builtin:tiny trained on grounding",
        "| updates | 2 |",
        "| learning rate | 0.001 |",
        "| grounding: data | read_synthetic (grounding, synthetic, train) |",
        "| grounding: rewards | format 1.0, iou 1.0 |",
        "| commit | 0123abcd, changed |",
        "| grounding | mIoU | 0.250 | 0.500 |",
        "Held-out samples, before and after training.",
        'AutoModelForImageTextToText.from_pretrained("path/to/this/folder", dtype="auto")',
        '(`"text_after_video": "largest"` in `config.json`)',
        "| vcr1, vLLM | right |",
        "| transformers 5.3 to 5.23 | wrong, inside the video's times; rounds the seconds of a step",
        "correct_positions(model)",
    ):
        assert said in card.text, said
    assert str(tmp_path) not in card.content
    (run / "report.json").write_text(report.replace('"steps": 2', '"steps": 9'))
    card = ModelCard.load(export(settings(checkpoint=run, out=tmp_path / "model")) / "README.md")
    assert "These weights are those of update 2 and were not measured." in card.text


@pytest.mark.parametrize(
    ("family", "rule", "said"),
    [
        ("qwen2_vl", "largest", "| transformers up to 5.2 | right |"),
        (
            "qwen2_5_vl",
            "largest",
            "| transformers up to 5.2 | right; rounds the seconds of a step down to whole",
        ),
        ("qwen2_5_vl", "frame", "| vLLM, transformers up to 5.2 | wrong, behind the video's times |"),
        ("qwen3_vl", "largest", "every reader places the text alike"),
    ],
)
def test_the_card_says_which_readers_place_the_text_right(family: str, rule: str, said: str) -> None:
    recipe = Recipe("org/name", {}, {}, {"algorithm": {}})
    config = SimpleNamespace(model_type=family, text_after_video=rule)
    assert said in model_card(recipe, config=config)
    assert "## Positions" not in model_card(recipe, config=SimpleNamespace(model_type="internvl"))
    if family != "qwen3_vl":  # adapters have no config.json, and their base may state another rule
        adapters = model_card(recipe, adapter=True, config=config)
        assert f'correct_positions(model, "{rule}")' in adapters
        assert "config.json" not in adapters.split("## Positions")[1].split("##")[0]


def test_the_card_of_adapters_names_a_base_on_the_hub(adapted: Trained, tmp_path: Path) -> None:
    cfg: Any = OmegaConf.load(adapted.folder / ".hydra" / "config.yaml")
    card = ModelCard(model_card(recipe_of(cfg, "Qwen/Qwen2.5-VL-7B-Instruct"), adapter=True))
    assert card.data.to_dict()["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert 'from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct"' in card.text
    assert 'model = PeftModel.from_pretrained(model, "path/to/this/folder")' in card.text
    assert "rank: 4" in card.text


# --------------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("adapters", [False, True])
def test_an_interrupted_export_leaves_the_older_folder(
    adapted: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapters: bool
) -> None:
    given = settings(checkpoint=adapted.checkpoint, out=tmp_path / "model", adapters=adapters)
    before = contents(export(given))

    def interrupt(self: PromptEncoder, folder: str) -> None:
        assert list(Path(folder).glob("*.safetensors"))  # midway
        raise KeyboardInterrupt

    def fail(self: PromptEncoder, folder: str) -> None:
        raise OSError("no space left on device")

    given.dtype = "bfloat16"
    monkeypatch.setattr(PromptEncoder, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(given)
    monkeypatch.setattr(PromptEncoder, "save", fail)
    with pytest.raises(UserError, match=r"out=.*/model: cannot be written \(no space left on device\)"):
        export(given)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert contents(tmp_path / "model") == before
    monkeypatch.undo()
    export(given)
    assert contents(tmp_path / "model") != before


def test_what_is_no_export_is_not_replaced(full: Trained, tmp_path: Path) -> None:
    shutil.copytree(resolve("builtin:tiny"), tmp_path / "base")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, says in {
        tmp_path / "mine": "is no export, and would be replaced",
        tmp_path / "mine" / "notes.txt": "there is a file of that name",
        full.folder: "would replace .*last.ckpt",
        tmp_path / "base": "would replace .*base, which the export is made from",
    }.items():
        with pytest.raises(UserError, match=f"out={out}: {says}"):
            export(settings(checkpoint=full.checkpoint, out=out, base=tmp_path / "base"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "mine"]
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert full.checkpoint.exists()


# --------------------------------------------------------------------------------------------- what is said


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def retell(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Write a checkpoint again with other weights."""

    def rewrite(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content["state_dict"])
        torch.save(content, path)

    return rewrite


NORM = "policy.model.model.language_model.norm.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "there is no such checkpoint"),
    "cut off": (cut, "the file is cut off, or no checkpoint at all"),
    "text": (lambda path: path.write_text("please log in"), "the file is cut off, or no checkpoint at all"),
    "no run's": (
        lambda path: torch.save({"model": {}}, path),
        "no checkpoint of a run, it has no state_dict",
    ),
    "weight missing": (
        retell(lambda state: state.pop(NORM)),
        r"another model than .*config\.yaml describes: it lacks model\.model\.language_model\.norm\.weight$",
    ),
    "weight unknown": (
        retell(lambda state: state.update({"policy.model.head.bias": torch.zeros(2)})),
        r"it has, and the model has not, model\.head\.bias$",
    ),
    "shape": (
        retell(lambda state: state.update({NORM: torch.zeros(3)})),
        r"it has in another shape model\.model\.language_model\.norm\.weight$",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_checkpoint_that_does_not_fit_is_named(full: Trained, tmp_path: Path, fault: str) -> None:
    shutil.copytree(full.folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    spoil, says = BROKEN[fault]
    spoil(path)
    with pytest.raises(UserError, match=says) as error:
        export(settings(checkpoint=path, out=tmp_path / "model"))
    assert str(error.value).startswith(f"checkpoint={path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


def test_adapters_do_not_fit_another_rank(adapted: Trained, full: Trained, tmp_path: Path) -> None:
    config = adapted.folder / ".hydra" / "config.yaml"
    with pytest.raises(UserError, match=r"it lacks .*lora_A\.default\.weight, .* and \d+ more$"):
        export(settings(checkpoint=full.checkpoint, out=tmp_path / "model", config=config))
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace("rank: 4", "rank: 8"))
    with pytest.raises(UserError, match="it has in another shape"):
        export(settings(checkpoint=adapted.checkpoint, out=tmp_path / "model", config=other))


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_damaged_shard_is_named(adapted: Trained, tmp_path: Path, name: str) -> None:
    path = shards(adapted, tmp_path / "run")
    cut(path / name)
    says = r"__0_0\.distcp has \d+ bytes" if name.endswith("distcp") else r"\.metadata cannot be read"
    with pytest.raises(UserError, match=f"checkpoint={path}: {says}"):
        export(settings(checkpoint=path, out=tmp_path / "model"))


class Note:
    """What a callback of one's own may keep."""


def test_objects_are_read_from_a_trusted_file_only(adapted: Trained, tmp_path: Path) -> None:
    shutil.copytree(adapted.folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["callbacks"]["mine"] = Note()
    torch.save(content, path, pickle_module=pickle)
    with pytest.raises(UserError, match="trust=true"):
        export(settings(checkpoint=path, out=tmp_path / "model"))
    assert export(settings(checkpoint=path, out=tmp_path / "model", trust=True)).is_dir()


def test_the_config_is_looked_for(full: Trained, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "step-2.ckpt"
    path.parent.mkdir()
    shutil.copy(full.checkpoint, path)
    with pytest.raises(
        UserError, match=rf"looked for {tmp_path}/\.hydra/config\.yaml and {tmp_path}/hparams"
    ):
        export(settings(checkpoint=path, out=tmp_path / "model"))
    config = full.folder / ".hydra" / "config.yaml"
    for name, text in {"odd.yaml": "a: [", "list.yaml": "[1]", "none.yaml": "a: 1"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{tmp_path / name}: "):
            export(settings(checkpoint=path, out=tmp_path / "model", config=tmp_path / name))
    with pytest.raises(UserError, match="config=nowhere: there is no such file"):
        export(settings(checkpoint=path, out=tmp_path / "model", config="nowhere"))
    # As the CSV logger leaves it, and a folder that names its last checkpoint by itself.
    resolved: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    OmegaConf.save(OmegaConf.create({"config": resolved, "git": {}}), tmp_path / "hparams.yaml")
    assert (export(settings(checkpoint=tmp_path, out=tmp_path / "model")) / "config.json").is_file()


def test_the_last_checkpoint_of_a_run_is_taken(full: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"checkpoint={tmp_path}: neither a checkpoint nor"):
        export(settings(checkpoint=tmp_path, out=tmp_path / "model"))
    with pytest.raises(UserError, match="checkpoint=nowhere: there is no such checkpoint"):
        export(settings(checkpoint="nowhere", out=tmp_path / "model"))


def test_other_faults_are_one_sentence(full: Trained, adapted: Trained, tmp_path: Path) -> None:
    given: dict[str, Any] = {"checkpoint": full.checkpoint, "out": tmp_path / "model"}
    moved = tmp_path / "moved.yaml"
    text = (adapted.folder / ".hydra" / "config.yaml").read_text()
    moved.write_text(text.replace("builtin:tiny", "builtin:gone"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"checkpoint": None}, "checkpoint= is missing"),
        ({"out": None}, "out= is missing"),
        ({"adapters": True}, "adapters=true: .*config.yaml trains without adapters"),
        ({"dtype": "int4"}, "dtype=int4 is no floating type"),
        (
            {"checkpoint": adapted.checkpoint, "config": moved},
            "builtin:gone.*base=FOLDER names another place",
        ),
    ]
    for wrong, says in cases:
        with pytest.raises(UserError, match=says):
            export(settings(**given | wrong))
    assert not (tmp_path / "model").exists()


def test_the_command_line(
    adapted: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export", f"checkpoint={adapted.folder}", "out=model", "adapters=true"])
    main()
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # no folder of Hydra's own
    monkeypatch.setattr(sys, "argv", ["export", "checkpoint=nowhere", "out=model"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "vcr1: checkpoint=nowhere: there is no such checkpoint\n"
