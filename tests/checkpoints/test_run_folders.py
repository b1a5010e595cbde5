"""Which folder a repeated command runs in."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from vcr1.checkpoints import run_folder

NOW = "2026-01-09_00-00-00"


def started(
    runs: Path, day: int, overrides: list[str], name: str = "demo", *, saved: bool = True, kind: str = "run"
) -> str:
    """What a run or sweep of an earlier day has left."""
    folder = runs / f"{name}-2026-01-0{day}_12-00-00"
    run = folder if kind == "run" else folder / "0"
    (run / "checkpoints").mkdir(parents=True)
    (folder / ".hydra").mkdir()
    if kind == "run":
        OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    else:
        settings = {"hydra": {"run": {"dir": "${run_folder:a}"}, "overrides": {"task": overrides}}}
        OmegaConf.save(OmegaConf.create(settings), folder / "multirun.yaml")
    if saved:
        torch.save({"global_step": 1}, run / "checkpoints" / "step-1.ckpt")
    return str(folder)


def chosen(runs: Path, ckpt_path: str | None, overrides: list[str], kind: str = "run") -> str:
    config = OmegaConf.create({"hydra": {"overrides": {"task": overrides}}})
    return run_folder(str(runs / "demo"), NOW, ckpt_path, kind, _root_=config)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_auto_finds_the_newest_run_of_the_same_command(tmp_path: Path, kind: str) -> None:
    command = ["experiment=demo", "seed=1"]
    started(tmp_path, 1, command, kind=kind)
    wanted = started(tmp_path, 2, ["seed=1", "experiment=demo", "ckpt_path=auto"], kind=kind)
    started(tmp_path, 3, ["experiment=demo", "seed=2"], kind=kind)
    started(tmp_path, 4, command, kind=kind, saved=False)
    started(tmp_path, 5, command, name="demo-other", kind=kind)
    assert chosen(tmp_path, "auto", ["ckpt_path=auto", *command], kind) == wanted


def test_auto_starts_anew_where_there_is_none(tmp_path: Path) -> None:
    started(tmp_path, 1, ["seed=2"])
    assert chosen(tmp_path, "auto", ["seed=1"]) == str(tmp_path / f"demo-{NOW}")


def test_last_finds_the_newest_run_of_the_name_with_a_checkpoint(tmp_path: Path) -> None:
    started(tmp_path, 1, ["seed=1"])
    wanted = started(tmp_path, 2, ["seed=2"])
    started(tmp_path, 3, ["seed=1"], saved=False)
    assert chosen(tmp_path, "last", ["seed=1"]) == wanted


@pytest.mark.parametrize("ckpt_path", [None, "some/step-3.ckpt"])
def test_otherwise_the_folder_is_new(tmp_path: Path, ckpt_path: str | None) -> None:
    started(tmp_path, 1, ["seed=1"])
    assert chosen(tmp_path, ckpt_path, ["seed=1"]) == str(tmp_path / f"demo-{NOW}")


def test_the_choice_stands_for_the_whole_process(tmp_path: Path) -> None:
    first = chosen(tmp_path, "auto", ["seed=1"])
    started(tmp_path, 1, ["seed=1"])  # such as its own first checkpoint
    assert chosen(tmp_path, "auto", ["seed=1"]) == first


def test_what_hydra_left_half_written_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = Path(started(tmp_path, 1, ["seed=1"]))
    (folder / ".hydra" / "overrides.yaml").write_text('- "seed')
    assert chosen(tmp_path, "auto", ["seed=1"]) == str(tmp_path / f"demo-{NOW}")
