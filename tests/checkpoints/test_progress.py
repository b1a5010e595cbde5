"""Chains of resumes, each from a checkpoint of the run before, on a module that only notes where it is."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from diary import Diary, resume

from vcr1.checkpoints import Checkpoints


class Killed(Exception):
    pass


class Fragile(Checkpoints):
    """Dies right after so many checkpoints."""

    def __init__(self, folder: Path, every: int, lives: int) -> None:
        super().__init__(str(folder), every=every)
        self.lives = lives

    def _save(self, trainer: L.Trainer) -> None:
        before = self._saved
        super()._save(trainer)
        if self._saved != before:
            self.lives -= 1
        if self.lives == 0:
            raise Killed


def fit(folder: Path, every: int, lives: int, updates: int, limits: dict[str, Any]) -> tuple[Diary, bool]:
    """The module, and whether it came to its end."""
    module = Diary(updates)
    try:
        resume(module, Fragile(folder, every, lives), **({"max_epochs": 3} | limits))
    except Killed:
        return module, False
    return module, True


LIMITS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "an incomplete last update": {"accumulate_grad_batches": 3},
    "evaluations within epochs": {"val_check_interval": 0.5},
    "evaluations across epochs": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "no evaluations": {"limit_val_batches": 0, "accumulate_grad_batches": 2},
    "steps": {"max_steps": 10, "max_epochs": -1},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("limits", LIMITS)
def test_a_chain_of_resumes_does_what_one_run_does(tmp_path: Path, limits: str, every: int) -> None:
    whole, _ = fit(tmp_path / "whole", 100, -1, 1, LIMITS[limits])
    notes, done, runs = list[Any](), False, 0
    while not done:
        module, done = fit(tmp_path / "parts", every, 1, 1, LIMITS[limits])
        notes += module.notes
        runs += 1
        assert runs < 20
    assert notes == whole.notes
    assert module.weight.equal(whole.weight)
    assert runs > 2


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_lie_between_two_rollouts(tmp_path: Path) -> None:
    fit(tmp_path, 1, -1, 2, {"max_epochs": 1, "limit_val_batches": 0})
    steps = {torch.load(path, weights_only=True)["global_step"] for path in tmp_path.glob("step-*.ckpt")}
    assert steps == {2, 4}
