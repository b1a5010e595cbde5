"""What is missing is said at once, all of it, by name, and without a stack."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vcr1.config.entry import exit_on_user_error, load_config
from vcr1.config.preflight import check_devices, preflight
from vcr1.errors import UserError
from vcr1.train import main

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., tuple[object, str]]
NO_LOGS = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to start in, on a machine without GPU, data and weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def hydra_state() -> Iterator[None]:
    """Hydra keeps the last job's config for the whole process."""
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], hydra_state: None
) -> Start:
    """Runs the command line in this process: (exit code, what it printed)."""

    def run(*overrides: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["train", *NO_LOGS, f"hydra.run.dir={tmp_path / 'run'}", *overrides])
        with pytest.raises(SystemExit) as exit_:
            main()
        output = capfd.readouterr()
        return exit_.value.code, output.out + output.err

    return run


# ------------------------------------------------------------------------------------- all that is missing


def test_a_bare_machine_is_told_all_that_is_missing(bare: Path) -> None:
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        preflight(load_config(run_dir=bare))
    assert time.perf_counter() - started < 15
    devices, data, model, hint = str(caught.value).splitlines()
    assert devices.startswith("trainer.devices=1 with trainer.accelerator=gpu: this machine has 0 CUDA GPUs")
    assert data.startswith("data.sources.grounding.train: ")
    assert "data/charades_sta/videos does not exist" in data
    assert model.startswith("model.path=Qwen/Qwen2.5-VL-7B-Instruct: ")
    assert str(bare / "hub") in model
    assert "experiment=demo" in hint


@pytest.mark.slow
def test_the_command_line_says_so_and_exits_with_2(tmp_path: Path, command_line: CommandLine) -> None:
    done = command_line(tmp_path, "task=grounding", "trainer.devices=8")
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0].startswith("vcr1: trainer.devices=8 ")
    assert [line.split(":")[0] for line in said[1:3]] == [
        "data.sources.grounding.train",
        "model.path=Qwen/Qwen2.5-VL-7B-Instruct",
    ]
    assert "experiment=demo" in said[3]
    assert "Traceback" not in done.stdout + done.stderr


def test_a_demo_has_all_it_needs(bare: Path, small: list[str]) -> None:
    annotations = preflight(load_config(["experiment=demo", *small], bare))
    (splits,) = annotations.values()
    assert {split: len(one.samples) for split, one in splits.items()} == {"train": 24, "val": 12}


# ------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("accelerator", "devices", "found"),
    [("cpu", 4, 0), ("auto", 2, 0), ("gpu", 2, 2), ("gpu", "auto", 1), ("cuda", -1, 1), ("gpu", "2", 8)],
)
def test_devices_that_are_there(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, devices: int | str, found: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    check_devices(accelerator, devices)


@pytest.mark.parametrize(
    ("accelerator", "devices", "found"),
    [("gpu", 2, 1), ("gpu", "auto", 0), ("cuda", -1, 0), ("gpu", "8", 4), ("gpu", 1, 0)],
)
def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, devices: int | str, found: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    message = rf"trainer\.devices={devices} with trainer\.accelerator={accelerator}: .* has {found} CUDA GPUs"
    with pytest.raises(UserError, match=message):
        check_devices(accelerator, devices)


# ---------------------------------------------------------------------------------------------- annotations


def activitynet(folder: Path, content: str | None) -> list[str]:
    """Overrides for a source under ``folder`` with this annotation file."""
    (folder / "videos").mkdir()
    if content is not None:
        (folder / "train.json").write_text(content)
    return [
        "experiment=demo",
        "data=activitynet",
        f"data.sources.grounding.train.annotations={folder / 'train.json'}",
        f"data.sources.grounding.train.videos={folder / 'videos'}",
        "data.sources.grounding.val=null",
    ]


GOOD = json.dumps({"v": {"duration": 4.0, "timestamps": [[0, 1]], "sentences": ["it rains"]}})


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "train.json does not exist"),
        ("", "train.json is empty"),
        ("{\n'v': 1}", "train.json: not valid JSON at line 2"),
        ("[]", "train.json: expected {video:"),
        ("{}", "train.json: 0 samples - nothing to work with"),
        ('{"v": {"duration": 4.0}}', "train.json: video 'v' needs duration"),
        (GOOD, "train.json: 0 samples; dropped 1 (missing video: 1); for example "),
    ],
    ids=["missing", "empty", "broken", "list", "no rows", "no timestamps", "no videos"],
)
def test_bad_annotations_are_named_with_field_and_file(
    tmp_path: Path, content: str | None, cause: str
) -> None:
    with pytest.raises(UserError) as caught:
        preflight(load_config(activitynet(tmp_path, content), tmp_path))
    problem, hint = str(caught.value).splitlines()
    assert problem.startswith("data.sources.grounding.train: ")
    assert str(tmp_path / "train.json") in problem
    assert cause in problem
    assert "experiment=demo" in hint


def test_a_missing_video_folder_is_named(tmp_path: Path) -> None:
    overrides = activitynet(tmp_path, GOOD)
    (tmp_path / "videos").rmdir()
    with pytest.raises(UserError) as caught:
        preflight(load_config(overrides, tmp_path))
    folder = tmp_path / "videos"
    assert str(caught.value).startswith(f"data.sources.grounding.train: video folder {folder} does not exist")


def test_every_task_s_data_is_looked_for(bare: Path) -> None:
    with pytest.raises(UserError) as caught:
        preflight(
            load_config(["experiment=demo", "task=grounding+tracking", "data=activitynet+got10k"], bare)
        )
    first, second, hint = str(caught.value).splitlines()
    assert first.startswith("data.sources.grounding.train: ")
    assert second.startswith("data.sources.tracking.train: ")
    assert "experiment=demo" in hint


def test_a_task_that_the_data_lacks_is_named(bare: Path) -> None:
    with pytest.raises(UserError) as caught:
        preflight(load_config(["experiment=demo", "task=tracking", "data=activitynet"], bare))
    problem, _ = str(caught.value).splitlines()
    assert problem == "data.sources.tracking is not configured: choose a data=... that has tracking"


def test_no_task_at_all_is_said(bare: Path, small: list[str]) -> None:
    with pytest.raises(UserError, match=r"^no task is selected: choose some"):
        preflight(load_config(["experiment=demo", *small, "task=[]"], bare))


def test_a_model_that_takes_no_videos_is_named(tmp_path: Path, small: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match=r"model\.path=.*: family bert answers no questions"):
        preflight(load_config(["experiment=demo", *small, f"model.path={tmp_path}"], tmp_path))


def test_several_problems_stand_in_one_message(tmp_path: Path, small: list[str]) -> None:
    wrong = ["model.path=builtin:huge", "data.video.fps=0", "rollout.top_p=0", "ckpt_path=missing.ckpt"]
    with pytest.raises(UserError) as caught:
        preflight(load_config(["experiment=demo", *small, *wrong], tmp_path))
    message = str(caught.value)
    assert [name for name in ("model.path", "data.video.fps", "rollout.top_p") if name not in message] == []
    assert "ckpt_path=missing.ckpt" in message


def test_checks_only_read(tmp_path: Path, small: list[str]) -> None:
    cfg = load_config(["experiment=demo", *small], tmp_path / "run")
    before = OmegaConf.to_yaml(cfg)
    preflight(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("rollout.temperature=-1", "rollout.temperature=-1"),
        ("rollout.temperature=0", "rollout.temperature=0"),
        ("rollout.max_new_tokens=0", "rollout.max_new_tokens=0"),
        ("data.video.fps=0", "data.video.fps"),
        ("data.video.total_pixels=1", "data.video.total_pixels"),
        ("data.loader.batch_size=1000", "data.loader.batch_size=1000"),
        ("data.sources.grounding.train.count=0", "data.sources.grounding.train"),
        ("algorithm.num_generations=1", "algorithm.num_generations=1"),
        ("algorithm.objective.kl_weight=-1", "algorithm.objective.kl_weight=-1"),
        ("algorithm.kl_weight=0", "algorithm.kl_weight is algorithm.objective.kl_weight now"),
        ("algorithm.schedule=step", "algorithm.schedule=step"),
        ("model.path=builtin:huge", "model.path=builtin:huge"),
        ("model.dtype=float33", "model.dtype=float33"),
        ("model.freeze=[nose]", "model.freeze"),
        ("ckpt_path=missing.ckpt", "ckpt_path=missing.ckpt"),
        ("+tasks.grounding.weights.beauty=1", "tasks.grounding.weights names beauty"),
        ("++data.sources.grounding.weight=-1", "data.sources.grounding.weight=-1"),
        ("data.sources.grounding.train=null", "data.sources.grounding.train is not configured"),
        ("+algorithm.nonsense=1", "nonsense"),
        ("+trainer.nonsense=1", "nonsense"),
        ("+rollout.nonsense=1", "nonsense"),
        ("+data.loader.nonsense=1", "nonsense"),
        ("+model.nonsense=1", "nonsense"),
        ("trainer.accelerator=gpu", "trainer.devices=1 with trainer.accelerator=gpu"),
    ],
)
def test_an_impossible_setting_is_named_without_a_stack(
    bare: Path, start: Start, small: list[str], override: str, field: str
) -> None:
    code, said = start("experiment=demo", *small, "logger=csv", override)
    assert code == 2
    assert said.count("vcr1: ") == 1
    assert field in said
    assert "Traceback" not in said
    assert not (bare / "run" / "report.json").exists()


@pytest.mark.parametrize(
    "override",
    [
        "experiment=demmo",
        "task=counting",
        "task=grounding+counting",
        "data=charades_sta+got11k",
    ],
)
def test_a_typo_in_an_option_is_one_sentence(start: Start, override: str) -> None:
    code, said = start(override)
    assert code == 2
    assert said.startswith(f"vcr1: {override.split('=')[0]}=")
    assert said.count("\n") == 1


@pytest.mark.parametrize("override", ["algorithm.lrr=1", "nonsense=1"])
def test_a_typo_in_a_key_is_one_sentence(start: Start, override: str) -> None:
    code, said = start(override)
    assert code == 2
    assert said.startswith(f"vcr1: {override}: there is no setting {override.split('=')[0]}")
    assert said.count("\n") == 1


def test_a_full_disk_is_one_sentence_in_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, exit_on_user_error():
        raise OSError(28, "No space left on device", "answers.json")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("vcr1: answers.json: No space left on device. What was written before is whole")
    with pytest.raises(PermissionError), exit_on_user_error():  # another fault keeps its stack
        raise PermissionError(13, "Permission denied", "answers.json")
