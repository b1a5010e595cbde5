"""Every shipped config composes, and what it names exists."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_object
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

from vcr1.config import build, build_all, conf_dir, read_annotations, selected_task
from vcr1.errors import UserError

OPTIONS = sorted(
    (path.parent.relative_to(conf_dir()).as_posix(), path.stem) for path in conf_dir().glob("*/**/*.yaml")
)
GROUPS = {
    "algorithm",
    "callbacks",
    "data",
    "experiment",
    "logger",
    "model",
    "report",
    "rollout",
    "strategy",
    "sweep",
    "task",
    "trainer",
}
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
FORWARDED: dict[Any, list[Callable[..., Any]]] = {DDPStrategy: [DistributedDataParallel]}
"""Whose arguments a target takes as ``**kwargs``, where they are not those of its base classes."""


def composed(*overrides: str, hydra: bool = False) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=["run_dir=somewhere", *overrides], return_hydra_config=hydra)


def plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def targets(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_``, by its place."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from targets(value, f"{place}.{key}" if place else key)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{place}[{number}]")


def parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a callable takes by name. ``**kwargs`` of a constructor stand for what its base classes take."""
    own = list(inspect.signature(target).parameters.values())
    if isinstance(target, type) and any(one.kind is one.VAR_KEYWORD for one in own):
        bases = [base for base in target.__mro__[1:] if base is not object and "__init__" in vars(base)]
        others = FORWARDED.get(target, bases)
        own += [one for other in others for one in inspect.signature(other).parameters.values()]
    return [one for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def faults(node: Any) -> list[str]:
    """What cannot be instantiated, and why."""
    found = []
    for place, config in targets(node):
        target = get_object(config["_target_"])
        taken = {one.name: one for one in parameters(target)}
        given = config.keys() - HYDRA_KEYS
        found += [f"{place}: no argument {name}" for name in sorted(given - taken.keys())]
        if not config.get("_partial_") and target not in FORWARDED:
            needed = {name for name, one in taken.items() if one.default is one.empty}
            found += [f"{place}: argument {name} missing" for name in sorted(needed - given)]
    return found


# ------------------------------------------------------------------------------------------ composition


def test_every_group_has_options() -> None:
    assert {group for group, _ in OPTIONS} == GROUPS


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_to_things_that_exist(group: str, option: str) -> None:
    cfg = plain(composed(f"{group}={option}"))
    assert [place for place, _ in targets(cfg)] != []
    assert faults(cfg) == []


def test_faults_are_seen() -> None:
    config = {
        "a": {"_target_": "vcr1.policy.Sampling", "temprature": 1.0},
        "b": [{"_target_": "vcr1.callbacks.HuggingFaceExport"}],
        "c": {"_target_": "vcr1.module.GRPOModule", "_partial_": True, "lr": 1.0, "nonsense": 1},
    }
    expected = ["a: no argument temprature", "b[0]: argument folder missing", "c: no argument nonsense"]
    assert faults(config) == expected


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "sweep"])
def test_a_sweep_varies_settings_that_exist(option: str) -> None:
    cfg = composed(f"sweep={option}", hydra=True)
    swept = cfg.hydra.sweeper.params
    assert len(swept) > 0
    for key, values in swept.items():
        assert OmegaConf.select(cfg, key) is not None, key
        assert len(str(values).split(",")) > 1, key


@pytest.mark.parametrize(
    ("overrides", "loggers"),
    [
        ([], {"csv", "wandb"}),
        (["logger=csv"], {"csv"}),
        (["logger=[]"], set()),
        (["logger=[wandb]"], {"wandb"}),
    ],
)
def test_loggers_are_chosen_by_name(overrides: list[str], loggers: set[str]) -> None:
    assert set(composed(*overrides).get("logger") or {}) == loggers


# --------------------------------------------------------------------------------------------- defaults


def test_without_overrides_the_run_is_the_paper_s() -> None:
    cfg = composed()
    assert cfg.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (cfg.model.dtype, cfg.model.gradient_checkpointing, cfg.model.freeze) == ("float32", True, [])
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")
    reader = "vcr1.tasks.grounding.read_charades_sta"
    sources = cfg.data.sources.grounding
    assert (sources.train._target_, sources.val._target_) == (reader, reader)
    assert (sources.train.limit, sources.val.limit) == (None, None)
    assert cfg.algorithm._target_ == "vcr1.module.GRPOModule"
    assert cfg.algorithm.num_generations == 8
    assert cfg.algorithm.lr == 1e-6
    assert cfg.algorithm.kl_weight == 0.04
    assert (cfg.rollout.temperature, cfg.rollout.top_p, cfg.rollout.top_k) == (1.0, 1.0, 0)
    assert cfg.rollout.max_new_tokens == 1024
    video = cfg.data.video
    assert (video.fps, video.min_frames, video.max_frames) == (2, 4, 768)
    assert (video.min_pixels, video.total_pixels) == (16 * 28 * 28, 3584 * 28 * 28)
    assert cfg.tasks.grounding == {
        "_target_": "vcr1.tasks.grounding.GroundingTask",
        "think": True,
        "weights": {"format": 1.0, "iou": 1.0},
    }
    assert cfg.report == {"before": False, "after": True, "wrong_video": False, "clips": 8}


def test_the_demo_needs_neither_data_nor_weights_nor_a_gpu() -> None:
    cfg = composed("experiment=demo")
    assert cfg.trainer.accelerator == "cpu"
    assert cfg.model.path == "builtin:tiny"
    assert cfg.data.sources.grounding.train._target_ == "vcr1.tasks.grounding.read_synthetic"
    assert cfg.algorithm._target_ == "vcr1.module.GRPOModule"


def test_a_choice_on_the_command_line_goes_before_the_experiment_s() -> None:
    cfg = composed("experiment=demo", "report=none", "model=qwen2_5_vl_3b", "trainer=gpu")
    assert cfg.model.path == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert cfg.trainer.accelerator == "gpu"
    assert cfg.report == {"before": False, "after": False, "wrong_video": False, "clips": 0}


def test_everything_that_is_written_lies_in_the_run_s_folder() -> None:
    one, other = (plain(composed(f"run_dir={folder}")) for folder in ("first", "second"))
    written = {
        "checkpoints": one["callbacks"]["checkpoint"]["dirpath"],
        "export": one["callbacks"]["export"]["folder"],
        "csv": one["logger"]["csv"]["save_dir"],
        "wandb": one["logger"]["wandb"]["folder"],
        "lightning": one["trainer"]["default_root_dir"],
    }
    assert {name: Path(path).parts[0] for name, path in written.items()} == dict.fromkeys(written, "first")
    assert "first" not in str(other)


def test_one_seed_and_one_sampling_serve_all() -> None:
    cfg = plain(composed("seed=7", "rollout.temperature=0.5"))
    assert (cfg["algorithm"]["seed"], cfg["data"]["loader"]["seed"]) == (7, 7)
    assert cfg["algorithm"]["sampling"] == cfg["rollout"]
    assert cfg["rollout"]["temperature"] == 0.5


# --------------------------------------------------------------------------------------------- building


def test_a_target_that_does_not_exist_is_the_user_s_fault() -> None:
    with pytest.raises(UserError, match=r"vcr1\.nothing\.There"):
        build({"_target_": "vcr1.nothing.There"})


def test_an_argument_that_does_not_exist_is_the_user_s_fault() -> None:
    with pytest.raises(UserError, match="temprature") as caught:
        build({"_target_": "vcr1.policy.Sampling", "temprature": 1.0})
    assert "\n" not in str(caught.value)


def test_a_target_s_own_complaint_comes_through_as_it_is() -> None:
    with pytest.raises(UserError) as caught:
        build({"_target_": "vcr1.policy.Sampling", "top_p": 2})
    assert str(caught.value) == "rollout.top_p=2 is out of range"


def test_a_fault_of_the_program_keeps_its_stack() -> None:
    with pytest.raises(InstantiationException) as caught:
        build({"_target_": "vcr1.records.Interval", "start": 2.0, "end": 1.0})
    assert isinstance(caught.value.__cause__, ValueError)


def test_null_entries_of_a_group_are_left_out() -> None:
    group = OmegaConf.create({"one": {"_target_": "vcr1.policy.Sampling", "top_k": 3}, "none": None})
    (built,) = build_all(group)
    assert built.top_k == 3
    assert build_all(None) == []


@pytest.mark.parametrize(
    ("tasks", "named"), [({}, "task=nothing"), (None, "task=nothing"), ({"a": {}, "b": {}}, r"task=a\+b")]
)
def test_a_run_trains_exactly_one_task(tasks: dict[str, Any] | None, named: str) -> None:
    assert selected_task(OmegaConf.create({"tasks": {"grounding": {}}})) == "grounding"
    with pytest.raises(UserError, match=f"{named}: a run trains exactly one task"):
        selected_task(OmegaConf.create({"tasks": tasks}))


def test_annotations_are_read_by_split(world: Path, small: list[str]) -> None:
    cfg = composed("experiment=demo", *small, "data.sources.grounding.val.limit=3")
    annotations = read_annotations(cfg)
    assert {split: len(one.samples) for split, one in annotations.items()} == {"train": 24, "val": 3}
    assert all(Path(sample.video).is_relative_to(world) for sample in annotations["train"].samples)


def test_held_out_data_may_be_missing_but_not_training_data(small: list[str]) -> None:
    assert list(read_annotations(composed("experiment=demo", *small, "data.sources.grounding.val=null"))) == [
        "train"
    ]
    with pytest.raises(UserError, match=r"^data\.sources\.grounding\.train is not configured"):
        read_annotations(composed("experiment=demo", *small, "data.sources.grounding.train=null"))
