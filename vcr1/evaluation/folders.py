"""Which folder an evaluation runs in: a new one, or that of the same command that was interrupted."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from vcr1.checkpoints.folders import essential, started_folders, started_with
from vcr1.evaluation.journal import PARTS
from vcr1.evaluation.output import METRICS

_CHOSEN: dict[tuple[str, str], str] = {}


def evaluation_folder(prefix: str, now: str, *, _root_: DictConfig) -> str:
    """Return the newest unfinished folder that was started by the same overrides; else a new one.

    Decided once in a process: that the folder is finished in the end must not change the answer.

    Args:
        prefix: of the folders of one name, e.g. ``runs/evaluate``.
        now: date and time, which make a new folder's name.
    """
    key = (prefix, now)
    if key not in _CHOSEN:
        overrides: Any = OmegaConf.select(_root_, "hydra.overrides.task") or []
        wanted = essential(map(str, overrides))
        _CHOSEN[key] = f"{prefix}-{now}"
        for folder in started_folders(prefix):
            known = started_with(folder, "run")
            unfinished = (folder / PARTS).is_dir() and not (folder / METRICS).is_file()
            if unfinished and known is not None and essential(known) == wanted:
                _CHOSEN[key] = str(folder)
                break
    return _CHOSEN[key]


OmegaConf.register_new_resolver("evaluation_folder", evaluation_folder, replace=True)
