"""From a composed config to the sizes that memory and work follow from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vcr1.config.building import build
from vcr1.config.sources import build_budget, build_task, selected_tasks
from vcr1.errors import UserError
from vcr1.planning.memory import Setup
from vcr1.planning.shape import ModelShape, shape_of
from vcr1.planning.workload import PlannedSharding, Precision, WeightSizes, Workload
from vcr1.policy import floating_type
from vcr1.policy.weights.loading import state_rule
from vcr1.policy.weights.shapes import empty_policy_model
from vcr1.video import PatchGrid
from vcr1.video.sampling import count_frames, frame_size

STAMP = 8
"""Tokens of a time between two frames, with what opens and closes a frame (Qwen3-VL)."""

SOURCE_FPS = 30
"""Frames a second of the largest video; it only matters where that is fewer than are sampled."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected sizes of a run's data; ``plan`` in the config.

    Attributes:
        show: print the plan before training.
        gpu_gb: memory of a GPU in GB; None for that of this machine's, or 80 where it has none.
        reserve_gb: of it, what CUDA itself and gaps between allocations take.
        seconds: length of the longest video.
        height: of its frames, in pixels.
        width: of its frames, in pixels.
        text_tokens: tokens of the longest prompt beside its video's.
        completion_tokens: tokens of a usual completion.

    Raises:
        UserError: a number that cannot be.
    """

    show: bool = True
    gpu_gb: float | None = None
    reserve_gb: float = 2.0
    seconds: float = 180.0
    height: int = 720
    width: int = 1280
    text_tokens: int = 256
    completion_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("gpu_gb", "seconds", "height", "width", "text_tokens", "completion_tokens"):
            value = getattr(self, name)
            if name == "gpu_gb" and value is None:
                continue
            if not isinstance(value, int | float) or not value > 0:
                raise UserError(f"plan.{name}={value}: must be a positive number")


def expected_of(cfg: DictConfig) -> Expected:
    """Return the config's ``plan``.

    Raises:
        UserError: a field that does not exist, or a value that cannot be.
    """
    given: Any = OmegaConf.to_container(cfg.plan, resolve=True)
    if unknown := sorted(given.keys() - Expected.__dataclass_fields__.keys()):
        raise UserError(f"plan.{unknown[0]} does not exist; it knows {', '.join(Expected.__slots__)}")
    return Expected(**given)


def setup_of(cfg: DictConfig) -> Setup:
    """Return the sizes of a run.

    Raises:
        UserError: a model without a path or whose configuration cannot be had, or a setting that cannot be.
    """
    if "path" not in cfg.model:
        raise UserError(
            f"model: {cfg.model.get('_target_')} has no model.path, so there is nothing to plan by"
        )
    lora = build(cfg.model.lora) if cfg.model.get("lora") else None
    model: Any = empty_policy_model(cfg.model.path, list(cfg.model.freeze), lora)
    state_rule(model.config, cfg.model.get("text_after_video"))
    shape, sharding = shape_of(model.config), sharding_of(cfg)
    return Setup(
        shape=shape,
        weights=weight_sizes_of(model, 0 if lora is None else lora.rank),
        load=load_of(cfg, shape),
        precision=precision_of(cfg, sharding),
        sharding=sharding,
        checkpointing=bool(cfg.model.gradient_checkpointing),
    )


def weight_sizes_of(model: Any, rank: int = 0) -> WeightSizes:
    """Return parameters of a Hugging Face model, and which of them are trained.

    Args:
        model: may be on the meta device.
        rank: of its adapters, 0 without.
    """
    own = {name: one for name, one in model.named_parameters() if ".lora_" not in name}
    adapters = sum(one.numel() for name, one in model.named_parameters() if ".lora_" in name)
    vision = {name: one for name, one in own.items() if name.startswith("model.visual.")}
    language = {name: one for name, one in own.items() if name.startswith("model.language_model.layers.")}
    adapted = any(".lora_" in name for name, _ in model.model.visual.named_parameters())
    return WeightSizes(
        total=sum(one.numel() for one in own.values()),
        trained=sum(one.numel() for one in own.values() if one.requires_grad),
        vision=sum(one.numel() for one in vision.values()),
        head=model.lm_head.weight.numel(),
        adapters=adapters,
        vision_trained=adapted or any(one.requires_grad for one in vision.values()),
        head_trained=model.lm_head.weight.requires_grad,
        language_trained=any(one.requires_grad for one in language.values()),
        rank=rank,
    )


def load_of(cfg: DictConfig, shape: ModelShape) -> Workload:
    """Return the largest micro-batch of a run: its task with the most tokens.

    Raises:
        UserError: no task, or a task or budget that cannot be.
    """
    expected = expected_of(cfg)
    steps, vision = max(
        (video_tokens(cfg, name, shape, expected) for name in selected_tasks(cfg)), key=lambda pair: pair[1]
    )
    longest = int(cfg.rollout.max_new_tokens)
    return Workload(
        prompts=int(cfg.data.loader.batch_size),
        vision_tokens=vision,
        text_tokens=int(expected.text_tokens) + (STAMP * steps if shape.stamped else 0),
        steps=steps,
        group=int(cfg.algorithm.get("num_generations", 1)),
        completion=longest,
        expected=min(int(expected.completion_tokens), longest),
        max_tokens=cfg.model.get("max_tokens"),
        samples="num_generations" in cfg.algorithm,
        reference=bool((cfg.algorithm.get("objective") or {}).get("kl_weight")),
        updates=int(cfg.algorithm.get("updates_per_rollout", 1)),
        eval_prompts=int(cfg.data.loader.eval_batch_size),
        micro_batches=int(cfg.trainer.accumulate_grad_batches),
        rows=cfg.rollout.get("rows"),
    )


def video_tokens(cfg: DictConfig, name: str, shape: ModelShape, expected: Expected) -> tuple[int, int]:
    """Temporal patches and tokens of a task's largest video: not the longest, as frames then get smaller."""
    budget, frames = build_budget(cfg, name), build_task(cfg, name).frames
    grid = PatchGrid(shape.temporal, shape.spatial)
    seconds = [*range(1, math.ceil(expected.seconds)), expected.seconds]
    counts = (
        {frames} if frames else {count_frames(s, math.ceil(s * SOURCE_FPS), budget, grid) for s in seconds}
    )
    found = []
    for count in counts:
        height, width = frame_size(expected.height, expected.width, count, budget, grid)
        steps = -(-count // shape.temporal)
        found.append((steps, steps * (height // shape.spatial) * (width // shape.spatial)))
    return max(found, key=lambda pair: pair[1])


def precision_of(cfg: DictConfig, sharding: PlannedSharding) -> Precision:
    """Return bytes of weights and of what is computed; shards are gathered in the type of the products."""
    weights = floating_type(cfg.model.dtype, "model.dtype").itemsize
    kind = str(cfg.trainer.get("precision") or "32-true")
    if kind.endswith("-true") and not kind.startswith("32"):
        weights = 8 if kind.startswith("64") else 2  # Lightning turns the whole module into it
    compute = min(weights, 2) if kind.endswith("-mixed") else weights
    return Precision(weights, compute, compute if sharding.shards > 1 else weights)


def sharding_of(cfg: DictConfig) -> PlannedSharding:
    """Return how a run is spread: alone, by DDP or by FSDP."""
    devices, nodes = devices_of(cfg), int(cfg.trainer.get("num_nodes") or 1)
    ranks = devices * nodes
    on_gpu = str(cfg.trainer.accelerator) != "cpu"
    strategy = cfg.trainer.get("strategy") or "auto"
    named = str(strategy if isinstance(strategy, str) else strategy.get("_target_", "")).lower()
    if ranks > 1 and any(word in named for word in ("fsdp", "modelparallel", "sharded")):
        settings = {} if isinstance(strategy, str) else strategy
        groups = settings.get("replicas", 1)
        groups = nodes if groups == "nodes" else int(groups)
        return PlannedSharding(ranks, ranks // groups, offload=bool(settings.get("offload")), on_gpu=on_gpu)
    if ranks > 1:
        inside = not isinstance(strategy, str) and bool(strategy.get("gradient_as_bucket_view"))
        return PlannedSharding(ranks, buckets=0 if inside else 1, kept=True, on_gpu=on_gpu)
    return PlannedSharding(on_gpu=on_gpu)


def devices_of(cfg: DictConfig) -> int:
    """Return devices of a node; where the config leaves that to the machine, as many GPUs as it has."""
    wanted = str(cfg.trainer.devices)
    if wanted.isdigit():
        return max(int(wanted), 1)
    return max(torch.cuda.device_count(), 1)
