"""What happens around training: the progress bar, the Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info

from vcr1.module import PolicyModule
from vcr1.policy import floating_type
from vcr1.records.files import write_whole
from vcr1.reporting.card import CARD


class ProgressBar(TQDMProgressBar):
    """A progress bar with few, chosen numbers.

    Args:
        shown: label -> logged metric. Each task of the run adds its own. A metric that the last update did
            not log is left out.
        refresh_rate: updates between two redraws.
    """

    def __init__(self, shown: Mapping[str, str], refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.shown = dict(shown)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the chosen numbers, with the update that they belong to."""
        log: Any = getattr(pl_module, "update_log", None)
        # Lightning keeps the last value of a task that had no turn since.
        logged = dict(trainer.callback_metrics)
        if log is not None:
            logged = {name: value for name, value in logged.items() if not name.startswith("train/")}
        logged |= {f"train/{name}": value for name, value in log.numbers.items()} if log else {}
        shown = self.shown | task_metrics(getattr(trainer, "datamodule", None))
        numbers = {label: f"{float(logged[name]):.3f}" for label, name in shown.items() if name in logged}
        return {"step": trainer.global_step if log is None else log.update} | numbers


def task_metrics(data: Any) -> dict[str, str]:
    """Return label -> logged metric of the tasks of a mixture; a label of two tasks bears their names."""
    tasks = [part.task for part in getattr(data, "parts", {}).values()]
    shown = [
        (task.name, task.shown or {metric: metric for metric in task.metric_names[:1]}) for task in tasks
    ]
    labels = [label for _, own in shown for label in own]
    return {
        label if labels.count(label) == 1 else f"{name} {label}": f"train/{name}/{metric}"
        for name, own in shown
        for label, metric in own.items()
    }


class HuggingFaceExport(Callback):
    """Writes the policy as a Hugging Face folder when training ends.

    Args:
        folder: where to write; an older export there is replaced.
        dtype: floating type of the written weights; None for that of the model.
    """

    def __init__(self, folder: str, dtype: str | None = None) -> None:
        self.folder = folder
        self.dtype = None if dtype is None else floating_type(dtype, "callbacks.export.dtype")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write on the first rank; ranks that share the weights hand theirs over."""
        if not isinstance(pl_module, PolicyModule):
            return
        if trainer.is_global_zero or pl_module.policy.sharding is not None:
            pl_module.policy.save(self.folder, self.dtype)
            rank_zero_info(f"Hugging Face folder: {self.folder}")

    def describe(self, card: str) -> None:
        """Put a model card into the folder that was written, once it is known what the model can do."""
        path = Path(self.folder) / CARD
        if path.parent.is_dir():
            write_whole(path, card)
