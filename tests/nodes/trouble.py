"""What goes wrong in the tests of several nodes: a callback that fails or dies at a step."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Trouble(Callback):
    """At a batch of one rank: ``raise`` or ``kill``.

    Without any, every rank notes its weights at the end.
    """

    def __init__(self, folder: str, kind: str = "none", rank: int = 1, batch: int = 1) -> None:
        self.folder, self.kind, self.rank, self.batch = Path(folder), kind, rank, batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.global_rank, batch_idx) != (self.rank, self.batch):
            return
        if self.kind == "raise":
            raise ValueError("boom at the second batch")
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        digest = hashlib.sha256()
        for _, value in sorted(pl_module.policy.state_dict().items()):
            digest.update(value.numpy().tobytes())
        name = f"weights-of-{trainer.global_rank}-of-{trainer.world_size}"
        (self.folder / name).write_text(digest.hexdigest())
