"""Types and bounds of the settings that no annotation of a called object states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vcr1.config.types import AboveZero, Bounds, Natural, NotNegative, Positive

Text = str | None
Paths = str | list[str]

SETTINGS: dict[str, Any] = {
    "name": str,
    "group": Text,
    "tags": list[str],
    "seed": Annotated[int, Bounds(0, 2**32 - 1)],
    "ckpt_path": Text,
    "threads": Positive | None,
    "run_dir": str,
    "plan.show": bool,
    "plan.gpu_gb": AboveZero | None,
    "plan.reserve_gb": NotNegative,
    "plan.seconds": AboveZero,
    "plan.height": Positive,
    "plan.width": Positive,
    "plan.text_tokens": Natural,
    "plan.completion_tokens": Positive,
    "watchdog.minutes": NotNegative,
    "watchdog.silence": AboveZero,
    "data.root": str,
    "data.box_decimals": Annotated[int, Bounds(0, 6)],
    "data.loader.batch_size": Positive,
    "data.loader.eval_batch_size": Positive,
    "data.loader.num_workers": Natural,
    "data.loader.prefetch": Positive,
    "data.loader.decoder": Literal["auto", "pyav", "decord"],
    "data.loader.decode_seconds": AboveZero | None,
    "data.loader.decode_memory": AboveZero | None,
    "data.loader.shuffle": bool,
    "data.loader.seed": Annotated[int, Bounds(0, 2**32 - 1)],
    "data.clips": dict[str, int],
    "data.sources.*.train": dict[str, Any] | None,
    "data.sources.*.val": dict[str, Any] | None,
    "data.sources.*.video": dict[str, Any],
    "data.sources.*.weight": AboveZero,
    "data.frames": dict[str, int],
    "benchmarks.*.task": Text,
    "benchmarks.*.video": dict[str, Any],
    "benchmarks.*.split": str,
    "benchmarks.*.sources": dict[str, Any],
    "benchmarks.*.options": dict[str, Any],
    "benchmarks.*.annotations": Text,
    "benchmarks.*.videos": Text,
    "benchmarks.*.clips": Natural,
    "benchmarks.*.sources.*.train": dict[str, Any] | None,
    "benchmarks.*.sources.*.val": dict[str, Any] | None,
    "report.before": bool,
    "report.after": bool,
    "report.wrong_video": bool,
    "report.clips": Natural,
    "check.workers": Natural,
    "check.compare": Natural,
    "check.limit": Positive | None,
    "check.journal": Text,
    "evaluation.draws": Positive,
    "evaluation.limit": Positive | None,
    "evaluation.longest": Positive,
    "evaluation.seconds": AboveZero,
    "evaluation.examples": Natural,
    "checkpoint": Text,
    "base": Text,
    "conversations": Text,
    "device": str,
    "video": Paths | None,
    "videos": Text,
    "query": Paths | None,
    "options": list[str],
    "box": list[float] | None,
    "start": NotNegative | None,
    "end": AboveZero | None,
    "fps": AboveZero | None,
    "out": Text,
    "render": Text | bool,
    "host": str,
    "port": Annotated[int, Bounds(0, 65535)],
    "upload_mb": AboveZero,
    "waiting": Natural,
    "adapters": bool,
    "dtype": Text,
    "config": Text,
    "trust": bool,
    "predictions": Text,
    "annotations": Text,
}
"""Dotted name -> annotation, in all programs; ``*`` is any name."""

TIGHTER: dict[str, Any] = {
    "trainer.max_steps": Annotated[int, Bounds(-1)],
    "trainer.max_epochs": Annotated[int, Bounds(-1)] | None,
    "trainer.min_steps": Natural | None,
    "trainer.min_epochs": Natural | None,
    "trainer.num_nodes": Positive,
    "trainer.accumulate_grad_batches": Positive,
    "trainer.gradient_clip_val": NotNegative | None,
    "trainer.gradient_clip_algorithm": Literal["norm", "value"] | None,
    "trainer.log_every_n_steps": Positive | None,
    "trainer.check_val_every_n_epoch": Positive | None,
    "trainer.num_sanity_val_steps": Annotated[int, Bounds(-1)] | None,
    "trainer.limit_train_batches": NotNegative | None,
    "trainer.limit_val_batches": NotNegative | None,
    "trainer.val_check_interval": AboveZero | str | dict[str, int] | None,
    "trainer.reload_dataloaders_every_n_epochs": Natural,
    "trainer.fast_dev_run": bool | Natural,
    "model.dtype": Text,  # null in programs that choose it
    "model.max_tokens": Positive | None,
    "model.feature_cache_gb": AboveZero,
    "model.freeze": list[str],
    "algorithm.lr": AboveZero,
    "algorithm.weight_decay": NotNegative,
    "algorithm.warmup_steps": NotNegative,
    "algorithm.num_generations": Positive,
    "algorithm.max_resamples": Natural,
    "algorithm.updates_per_rollout": Positive,
    "algorithm.reference_refresh": Positive | None,
    "algorithm.overlong_buffer": Annotated[float, Bounds(0, 1)],
    "algorithm.final_lr": Annotated[float, Bounds(0, 1)],
    "algorithm.seed": Annotated[int, Bounds(0, 2**32 - 1)],
}
"""Dotted name -> annotation where that of the called object says less than is true."""

REFUSED = {
    "trainer.logger": "loggers are chosen by logger=csv, logger=[csv,wandb] or logger=null",
    "trainer.callbacks": "callbacks are entries of the group callbacks: +callbacks.NAME={_target_: ...}",
    "trainer.limit_test_batches": "training has no test stage; python -m vcr1.evaluate scores benchmarks",
    "trainer.limit_predict_batches": "training has no predict stage; use python -m vcr1.predict",
    "trainer.overfit_batches": (
        "it would replace the order of samples that a resumed run relies on; use trainer.limit_train_batches "
        "with data.loader.shuffle=false"
    ),
    "trainer.use_distributed_sampler": "it spreads evaluations over ranks; training has its own order",
    "trainer.reload_dataloaders_every_n_epochs": "data stay the same over a run",
    "trainer.barebones": "it leaves out the metrics and checkpoints of which a run is made",
    "trainer.model_registry": "it is of Lightning's own cloud; checkpoints lie in the run's folder",
}
"""Arguments of Lightning's Trainer that a run cannot have -> why, and what to use."""

OPEN = ("tasks", "data.sources", "callbacks", "logger", "benchmarks", "benchmarks.*.sources", "own")
"""Nodes that take entries of any name; below ``own`` a config may keep values that others refer to."""

CALLED = ("data.video", "judge", "model", "algorithm", "rollout", "trainer", "clues", "limits")
"""Nodes with a ``_target_``, where a program has them."""
