"""Which folder a command runs in: a new one, or that of the run that it goes on with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vcr1.checkpoints.files import complete_checkpoints

CONTINUE = ("last", "auto")
"""Values of ``ckpt_path`` that look for a checkpoint instead of naming one."""
OVERRIDES = {"run": ".hydra/overrides.yaml", "sweep": "multirun.yaml"}
"""Where Hydra keeps the overrides of a run, and of a sweep."""


def run_folder(prefix: str, now: str, ckpt_path: str | None, kind: str, *, _root_: DictConfig) -> str:
    """Return the folder of a run or sweep, for ``hydra.run.dir`` and ``hydra.sweep.dir``.

    With ``ckpt_path=auto`` that of the newest run that was started by the same overrides and has a
    checkpoint; with ``ckpt_path=last`` that of the newest run of this name that has one. Else a new one.

    Args:
        prefix: of the folders of one name, e.g. ``runs/demo``.
        now: date and time, which make a new folder's name.
        ckpt_path: of the run.
        kind: ``run`` or ``sweep``.
    """
    overrides: Any = OmegaConf.select(_root_, "hydra.overrides.task") or []
    return _chosen(prefix, now, ckpt_path, kind, tuple(map(str, overrides)))


def _chosen(prefix: str, now: str, ckpt_path: str | None, kind: str, overrides: tuple[str, ...]) -> str:
    """Return the folder, decided once in a process: its own checkpoints must not change the answer."""
    key = (prefix, now, ckpt_path, kind)
    if key not in _CHOSEN:
        _CHOSEN[key] = _choose(prefix, now, ckpt_path, kind, overrides)
    return _CHOSEN[key]


_CHOSEN: dict[tuple[str, str, str | None, str], str] = {}


def _choose(prefix: str, now: str, ckpt_path: str | None, kind: str, overrides: Sequence[str]) -> str:
    if ckpt_path in CONTINUE:
        for folder in started_folders(prefix):
            known = started_with(folder, kind)
            same = known is not None and essential(known) == essential(overrides)
            if known is not None and (ckpt_path == "last" or same) and has_checkpoint(folder, kind):
                return str(folder)
    return f"{prefix}-{now}"


def started_folders(prefix: str) -> list[Path]:
    """Return the folders of runs of one name, the newest first."""
    place = Path(prefix)
    dated = place.parent.glob(f"{place.name}-[0-9][0-9][0-9][0-9]-*_*")
    return sorted((path for path in dated if path.is_dir()), reverse=True)  # the names are dates


def started_with(folder: Path, kind: str) -> list[str] | None:
    """Return the overrides that a run or sweep was started with; None where that is not known."""
    try:
        content: Any = OmegaConf.load(folder / OVERRIDES[kind])
        overrides: Any = content if kind == "run" else OmegaConf.select(content, "hydra.overrides.task")
        return [str(override) for override in overrides]
    except Exception:  # a file that is not there, or was cut off when the run was killed
        return None


def essential(overrides: Iterable[str]) -> list[str]:
    """Return overrides without those that say only where to go on from."""
    return sorted(override for override in overrides if not override.lstrip("+").startswith("ckpt_path="))


def has_checkpoint(folder: Path, kind: str) -> bool:
    """Return whether a run, or any job of a sweep, has come as far as a checkpoint."""
    runs = [folder] if kind == "run" else [path for path in folder.iterdir() if path.is_dir()]
    return any(complete_checkpoints(run / "checkpoints") for run in runs)
