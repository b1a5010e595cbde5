"""Every shipped config composes, and what it names exists."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import get_object
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

from vcr1.config.building import build, build_all
from vcr1.config.choices import check_choices, conf_dir, expand_choices
from vcr1.config.entry import command_line, load_config
from vcr1.config.sources import (
    build_budget,
    build_data,
    build_task,
    read_annotations,
    selected_tasks,
    training_order,
)
from vcr1.distributed.ranks import check_launcher
from vcr1.errors import UserError
from vcr1.policy import load_encoder
from vcr1.readers import read_passes, read_synthetic

OPTIONS = sorted(
    (path.parent.relative_to(conf_dir()).as_posix(), path.stem)
    for path in conf_dir().glob("*/**/*.yaml")
    if "hydra" not in path.relative_to(conf_dir()).parts  # Hydra's own; see "sweeps on a cluster" below
)
GROUPS = {
    "adapter",
    "algorithm",
    "benchmark",
    "callbacks",
    "clues",
    "data",
    "experiment",
    "judge",
    "loader",
    "logger",
    "model",
    "report",
    "rollout",
    "source",
    "strategy",
    "sweep",
    "task",
    "trainer",
}
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
FORWARDED: dict[Any, list[Callable[..., Any]]] = {
    DDPStrategy: [DistributedDataParallel],
    read_passes: [read_synthetic],
}
"""Whose arguments a target takes as ``**kwargs``, where they are not those of its base classes."""


def composed(*overrides: str, hydra: bool = False, config: str = "train") -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config, overrides=["run_dir=somewhere", *overrides], return_hydra_config=hydra)


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
    if any(one.kind is one.VAR_KEYWORD for one in own):
        classes = target.__mro__[1:] if isinstance(target, type) else ()
        bases = [base for base in classes if base is not object and "__init__" in vars(base)]
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
    config = {"benchmark": "evaluate", "clues": "predict"}.get(group, "train")
    choice = [f"{group}={option}"]
    if group == "source":  # what data sets are made of
        choice = [f"+source@data.sources.own={option}", "+data.clips={train: 2, val: 1}"]
    cfg = plain(composed(*choice, config=config))
    assert [place for place, _ in targets(cfg)] != []
    assert faults(cfg) == []


def test_faults_are_seen() -> None:
    config = {
        "a": {"_target_": "vcr1.policy.Sampling", "temprature": 1.0},
        "b": [{"_target_": "vcr1.reporting.callbacks.HuggingFaceExport"}],
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
    reader = "vcr1.readers.read_charades_sta"
    sources = cfg.data.sources.grounding
    assert (sources.train._target_, sources.val._target_) == (reader, reader)
    assert (sources.train.limit, sources.val.limit) == (None, None)
    assert cfg.algorithm._target_ == "vcr1.module.GRPOModule"
    assert cfg.algorithm.num_generations == 8
    assert cfg.algorithm.lr == 1e-6
    assert cfg.algorithm.objective.kl_weight == 0.04
    assert (cfg.rollout.temperature, cfg.rollout.top_p, cfg.rollout.top_k) == (1.0, 1.0, 0)
    assert cfg.rollout.max_new_tokens == 1024
    video = cfg.data.video
    assert (video.fps, video.min_frames, video.max_frames) == (2, 4, 768)
    assert (video.min_pixels, video.total_pixels) == (16 * 28 * 28, 3584 * 28 * 28)
    assert cfg.tasks.grounding == {
        "_target_": "vcr1.tasks.GroundingTask",
        "think": True,
        "rewards": {},
        "weights": {"format": 1.0, "iou": 1.0},
    }
    assert cfg.report == {"before": False, "after": True, "wrong_video": False, "clips": 8}


def test_the_demo_needs_neither_data_nor_weights_nor_a_gpu() -> None:
    cfg = composed("experiment=demo")
    assert cfg.trainer.accelerator == "cpu"
    assert cfg.model.path == "builtin:tiny"
    assert cfg.data.sources.grounding.train._target_ == "vcr1.readers.read_synthetic"
    assert cfg.algorithm._target_ == "vcr1.module.GRPOModule"


def test_a_choice_on_the_command_line_goes_before_the_experiment_s() -> None:
    cfg = composed("experiment=demo", "report=none", "model=qwen2_5_vl_3b", "trainer=gpu")
    assert cfg.model.path == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert cfg.trainer.accelerator == "gpu"
    assert cfg.report == {"before": False, "after": False, "wrong_video": False, "clips": 0}


def test_everything_that_is_written_lies_in_the_run_s_folder() -> None:
    one, other = (plain(composed(f"run_dir={folder}")) for folder in ("first", "second"))
    written = {
        "checkpoints": one["callbacks"]["checkpoint"]["folder"],
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


# --------------------------------------------------------------------------------- sweeps on a cluster


@dataclass
class Slurm:
    """The options that the shipped launcher uses, by the names and types of hydra-submitit-launcher 1.2."""

    _target_: str = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    submitit_folder: str = "${hydra.sweep.dir}/.submitit/%j"
    timeout_min: int = 60
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    tasks_per_node: int = 1
    nodes: int = 1
    partition: str | None = None
    setup: list[str] | None = None


def test_a_slurm_job_of_a_sweep_has_a_task_for_each_rank() -> None:
    ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node=Slurm())
    cfg = composed("hydra/launcher=slurm", "trainer.num_nodes=2", "trainer.devices=4", hydra=True)
    launcher = cfg.hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)
    assert launcher.setup == ["export SLURM_KILL_BAD_EXIT=1"]


def test_without_the_extra_sweeps_run_here_and_slurm_says_what_it_needs() -> None:
    assert composed(hydra=True).hydra.launcher._target_.endswith("BasicLauncher")
    check_launcher(["-m", "algorithm.lr=1,2"], package="no_such.package")
    check_launcher(["hydra/launcher=slurm"], package="hydra.core")
    with pytest.raises(UserError, match=r"^hydra/launcher=slurm needs .*pip install 'vcr1\[slurm\]'$"):
        check_launcher(["-m", "hydra/launcher=slurm"], package="no_such.package")


def test_ranks_of_one_launch_have_one_folder_of_which_the_first_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"NTASKS": "16", "PROCID": "0", "JOB_ID": "77", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = {}
    for rank in ("0", "3"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        hydra = composed(hydra=True).hydra
        found[rank] = (hydra.run.dir, hydra.sweep.dir, hydra.output_subdir, hydra.job.name)
    folder = "runs/train-slurm-77.0"
    assert found["0"] == (folder, folder, ".hydra", "train")
    assert found["3"] == (folder, folder, None, "train_rank_3")


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


# --------------------------------------------------------------------------------------- several tasks


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("task=grounding+tracking", "task=[grounding,tracking]"),
        ("data=charades_sta+got10k+vidtab", "data=[charades_sta,got10k,vidtab]"),
        ("task=grounding+grounded_qa", "task=[grounding,grounded_qa]"),
        # A sweep over mixtures.
        ("task=grounding,tracking,grounding+tracking", "task=[grounding],[tracking],[grounding,tracking]"),
        ("data=activitynet+got10k,charades_sta+got10k", "data=[activitynet,got10k],[charades_sta,got10k]"),
    ],
)
def test_joined_choices_are_written_as_hydra_wants_them(given: str, expanded: str) -> None:
    assert expand_choices(["-m", given, "seed=1"]) == ["-m", expanded, "seed=1"]


@pytest.mark.parametrize(
    "override",
    [
        "task=grounding",
        "task=grounding,tracking",  # a sweep over single tasks
        "task=[grounding,tracking]",
        "task=[grounding],[tracking],[grounding,tracking]",
        "data=[charades_sta+got10k]",
        "task='grounding+tracking'",
        "task=",
        "task",
        "name=grounding+tracking",
        "data.root=some+folder",
        "algorithm.lr=1e+5",
        "+tasks.own.judge=a+b",
        "experiment=one+two",
        "~task=a+b",
        "--multirun",
        "",
    ],
)
def test_other_overrides_stay_as_they_are(override: str) -> None:
    assert expand_choices([override]) == [override]


def test_a_number_of_clues_is_one_of_rounds() -> None:
    given = ["clues=2", "clues=0,1", "clues=default", "clues.rounds=3"]
    assert expand_choices(given) == ["clues.rounds=2", "clues.rounds=0,1", "clues=default", "clues.rounds=3"]


def test_expanding_twice_changes_nothing_more() -> None:
    once = expand_choices(["task=a+b,c", "data=d+e", "trainer.max_steps=1", "clues=1"])
    assert expand_choices(once) == once
    assert once == ["task=[a,b],[c]", "data=[d,e]", "trainer.max_steps=1", "clues.rounds=1"]


@pytest.mark.parametrize("program", ["train", "evaluate", "predict", "score", "check", "plan", "export"])
def test_an_unknown_option_is_one_sentence_of_every_program(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(cfg: DictConfig) -> None:
        raise AssertionError

    for override, start in (
        ("benchmark=chess", "benchmark=chess: there is no such benchmark; choose from activitynet, charades"),
        ("task=grounding+chess", "task=chess: there is no such task; choose from captioning, free, grounded"),
    ):
        monkeypatch.setattr("sys.argv", [f"vcr1.{program}", override])
        with pytest.raises(SystemExit) as stop:
            command_line(never, program)()
        said = capsys.readouterr()
        assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith(f"vcr1: {start}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["task=grounding", "model=[tiny]", "experiment=null", "logger=[]", "adapter="],
        ["-m", "task=grounding,tracking", "task=[grounding],[qa,quality]", "benchmark=videomme.yaml"],
        ["trainer.devices=8", "data.root=benchmark=chess", "~task", "~logger=csv", "hydra/launcher=slurm"],
        ["task=", "=", "task=[broken", "task={a:b}", "--cfg", "job", "chess=1"],  # Hydra's affair
        ["hydra.searchpath=[pkg://somewhere]", "task=chess"],
        ["--config-dir", "own", "task=chess+grounding", "+task@tasks.other=chess"],
        ["--config-dir=own", "task=[chess]"],
    ],
)
def test_options_that_exist_are_left_to_hydra(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "task").mkdir(parents=True)
    (tmp_path / "own" / "task" / "chess.yaml").touch()
    check_choices(expand_choices(arguments))


@pytest.mark.parametrize(
    "arguments",
    [["task=[qa,chess]"], ["-m", "task=qa,chess"], ["task='chess'"], ["+task@tasks.other=chess"]],
)
def test_unknown_options_are_found_in_every_form(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r"^task=chess: there is no such task; choose from captioning, "):
        check_choices(arguments)


def test_selected_tasks_are_those_of_the_command_line() -> None:
    def chosen(*overrides: str) -> list[str]:
        return selected_tasks(load_config(overrides))

    assert chosen() == ["grounding"]
    assert chosen("task=tracking") == ["tracking"]
    assert chosen("task=tracking+grounding") == ["tracking", "grounding"]
    assert chosen("task=[qa,quality]") == ["qa", "quality"]
    assert chosen("experiment=demo", "task=grounding+tracking") == ["grounding", "tracking"]


@pytest.mark.parametrize("tasks", [{}, None])
def test_a_run_needs_a_task(tasks: dict[str, Any] | None) -> None:
    with pytest.raises(UserError, match=r"^no task is selected: choose some, such as task=grounding or"):
        selected_tasks(OmegaConf.create({"tasks": tasks}))
    with pytest.raises(UserError, match="no task is selected"):
        selected_tasks(load_config(["task=[]"]))


def test_several_data_sets_give_each_task_its_own() -> None:
    cfg = load_config(["task=grounding+tracking", "data=activitynet+got10k"])
    assert list(cfg.data.sources) == ["grounding", "tracking"]
    assert cfg.data.sources.grounding.train._target_ == "vcr1.readers.read_activitynet"
    assert cfg.data.sources.tracking.train._target_ == "vcr1.readers.read_got10k"
    assert cfg.data.sources.tracking.train.boxes == cfg.tasks.tracking.boxes == 8
    assert (
        load_config(
            ["data=got10k", "task=tracking", "tasks.tracking.boxes=5"]
        ).data.sources.tracking.val.boxes
        == 5
    )


def test_a_task_is_logged_under_its_place() -> None:
    cfg = load_config(["task=qa", "+tasks.second={_target_: vcr1.tasks.QATask, think: false}"])
    assert selected_tasks(cfg) == ["qa", "second"]
    assert [build_task(cfg, name).name for name in selected_tasks(cfg)] == ["qa", "second"]
    assert [build_task(cfg, name).think for name in selected_tasks(cfg)] == [True, False]


def test_a_task_may_have_a_budget_of_its_own() -> None:
    cfg = load_config(["experiment=demo", "task=grounding+tracking", "data.video.fps=1"])
    ours, own = build_budget(cfg, "grounding"), build_budget(cfg, "tracking")
    assert (ours.fps, ours.min_pixels, ours.total_pixels) == (1, 784, 784)
    # Its own one is taken whole: what it does not say is the budget's default, not that of all data.
    assert (own.fps, own.min_pixels, own.total_pixels) == (2.0, 3136, 12544)
    assert build_budget(cfg, "of no source") == ours


# ---------------------------------------------------------------------------------------- annotations


def counts(cfg: DictConfig) -> dict[str, dict[str, int]]:
    return {
        name: {split: len(one.samples) for split, one in splits.items()}
        for name, splits in read_annotations(cfg).items()
    }


def test_annotations_are_read_by_task_and_split(world: Path, small: list[str]) -> None:
    cfg = composed("experiment=demo", *small, "data.sources.grounding.val.limit=3")
    assert counts(cfg) == {"grounding": {"train": 24, "val": 3}}
    samples = read_annotations(cfg)["grounding"]["train"].samples
    assert all(Path(sample.source.path).is_relative_to(world) for sample in samples)


def test_only_the_selected_tasks_are_read(small: list[str]) -> None:
    # One sample for each clip of a shape in motion, two for each clip of events.
    both = load_config(["experiment=demo", *small, "task=grounding+tracking"])
    assert counts(both) == {"grounding": {"train": 24, "val": 12}, "tracking": {"train": 12, "val": 6}}
    assert counts(load_config(["experiment=demo", *small, "task=tracking"])) == {
        "tracking": {"train": 12, "val": 6}
    }


def test_held_out_data_may_be_missing_but_not_training_data(small: list[str]) -> None:
    encoder = load_encoder("builtin:tiny")
    blind = composed("experiment=demo", *small, "data.sources.grounding.val=null")
    assert counts(blind) == {"grounding": {"train": 24}}
    assert build_data(blind, read_annotations(blind), encoder).val_dataloader() == []
    untrained = composed("experiment=demo", *small, "data.sources.grounding.train=null")
    annotations = read_annotations(untrained)  # enough to check or to evaluate
    assert counts(untrained) == {"grounding": {"val": 12}}
    with pytest.raises(
        UserError, match=r"^data\.sources\.grounding\.train is not configured: choose a data="
    ):
        training_order(untrained, annotations)


def test_the_order_of_training_is_known_before_it_begins(small: list[str]) -> None:
    cfg = composed("experiment=demo", *small, "task=[grounding,tracking]", "data.loader.batch_size=3")
    cfg.data.sources.tracking.weight = 2
    annotations = read_annotations(cfg)  # 24 and 12 samples, tracking's twice
    assert training_order(cfg, annotations).batches == {"grounding": 8, "tracking": 8}
    assert training_order(cfg, annotations, world_size=4).batches == {"grounding": 2, "tracking": 2}
    with pytest.raises(UserError, match=r"batch_size=3 on 9 rank.* only 24 training samples of grounding"):
        training_order(cfg, annotations, world_size=9)


def test_tasks_without_data_are_all_named(small: list[str]) -> None:
    wrong = ["data.sources.grounding=null", "data.sources.tracking.train.count=0", "+data.sources.qa.test=x"]
    cfg = load_config(["experiment=demo", *small, "task=grounding+tracking+qa", *wrong])
    with pytest.raises(UserError) as caught:
        read_annotations(cfg)
    first, second, third = str(caught.value).splitlines()
    assert first == "data.sources.grounding is not configured: choose a data=... that has grounding"
    assert second.startswith("data.sources.tracking.train: ")
    assert third == "data.sources.qa has test; it knows train, val, weight and video"


def test_data_is_built_for_each_task(small: list[str]) -> None:
    overrides = [
        "task=grounding+tracking",
        "++data.sources.tracking.weight=0.5",
        "tasks.tracking.think=false",
    ]
    cfg = load_config(["experiment=demo", *small, *overrides])
    data = build_data(cfg, read_annotations(cfg), load_encoder("builtin:tiny"))
    assert list(data.parts) == ["grounding", "tracking"]
    assert [part.task.think for part in data.parts.values()] == [True, False]
    assert [part.budget.total_pixels for part in data.parts.values()] == [784, 12544]
    assert data.weights == {"grounding": 1.0, "tracking": 0.5}
    # Batches of two: 24 samples of one task; half of the 12 of the other.
    assert len(data.train_dataloader()) == 12 + 3
    assert [len(part.samples("val")) for part in data.parts.values()] == [12, 6]


def test_frames_that_the_model_cannot_pack_are_refused(small: list[str]) -> None:
    cfg = load_config(["experiment=demo", *small, "task=tracking", "tasks.tracking.boxes=7"])
    with pytest.raises(UserError, match=r"tasks\.tracking\.boxes=7: the model takes 2 frames at a time"):
        build_data(cfg, read_annotations(cfg), load_encoder("builtin:tiny"))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("+data.loader.nonsense=1", r"data\.loader: .*nonsense"),
        ("data.loader.batch_size=0", r"data\.loader\.batch_size=0 is no whole number of at least 1"),
    ],
)
def test_a_loader_s_setting_that_cannot_be_is_named(small: list[str], override: str, problem: str) -> None:
    cfg = load_config(["experiment=demo", *small, override])
    with pytest.raises(UserError, match=problem):
        build_data(cfg, read_annotations(cfg), load_encoder("builtin:tiny"))


def test_a_weight_that_cannot_be_is_named(small: list[str]) -> None:
    cfg = load_config(["experiment=demo", *small, "++data.sources.grounding.weight=0"])
    data = build_data(cfg, read_annotations(cfg), load_encoder("builtin:tiny"))
    with pytest.raises(UserError, match=r"data\.sources\.grounding\.weight=0 is no positive number"):
        data.train_dataloader()


def test_a_target_that_has_moved_is_named() -> None:
    with pytest.raises(UserError, match=r"; vcr1\.rewards is vcr1\.scoring\.rewards now$"):
        build({"_target_": "vcr1.rewards.answer_format", "_partial_": True})


def test_a_command_without_arguments_has_no_choices_to_check() -> None:
    check_choices([])
    check_choices(["--config-dir"])
