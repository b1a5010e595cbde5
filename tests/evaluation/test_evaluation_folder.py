"""The same command goes on in its unfinished folder; another one, or a finished folder, does not."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vcr1.evaluation import evaluation_folder

OVERRIDES = ["benchmark=[charades_sta]", "checkpoint=model"]


def started(folder: Path, overrides: list[str], *, answered: bool = True, finished: bool = False) -> str:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    if answered:
        (folder / "parts").mkdir()
    if finished:
        (folder / "metrics.json").touch()
    return str(folder)


def chosen(prefix: Path, now: str) -> str:
    root = OmegaConf.create({"hydra": {"overrides": {"task": OVERRIDES}}})
    return evaluation_folder(str(prefix), now, _root_=root)


def test_only_the_unfinished_folder_of_the_same_command_is_gone_on_with(tmp_path: Path) -> None:
    prefix = tmp_path / "evaluate"
    started(tmp_path / "evaluate-2026-01-01_00-00-00", OVERRIDES)
    newer = started(tmp_path / "evaluate-2026-01-02_00-00-00", OVERRIDES)
    started(tmp_path / "evaluate-2026-01-03_00-00-00", OVERRIDES, finished=True)
    started(tmp_path / "evaluate-2026-01-04_00-00-00", OVERRIDES, answered=False)
    started(tmp_path / "evaluate-2026-01-05_00-00-00", [*OVERRIDES, "seed=1"])
    assert chosen(prefix, "2026-01-06_00-00-00") == newer
    (Path(newer) / "metrics.json").touch()
    assert chosen(prefix, "2026-01-06_00-00-00") == newer  # it stays so while the process runs


@pytest.mark.parametrize("overrides", [["seed=1"], [*OVERRIDES, "evaluation.draws=2"]])
def test_else_the_folder_is_new(tmp_path: Path, overrides: list[str]) -> None:
    started(tmp_path / "evaluate-2026-01-01_00-00-00", overrides)
    assert chosen(tmp_path / "evaluate", "now") == str(tmp_path / "evaluate-now")
