"""Real updates of a model of a few million parameters, and the peak of what they allocate."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vcr1.module import GRPOModule, SFTModule
from vcr1.objectives import Objective
from vcr1.planning import PlannedSharding, Precision, Setup, Workload, shape_of, weight_sizes_of
from vcr1.policy import LoRA, Sampling, load_encoder, load_policy
from vcr1.records import Batch, Interval, PromptInputs, Sample, VideoClip
from vcr1.tasks import GroundingTask

VIDEO, IMAGE, START, END = 7, 6, 3, 4
GRID = (4, 12, 12)
"""Patches of the video in time, height and width: 144 tokens."""

WORDS = 32
COMPLETION = 12
GROUP = 8


def write_model(folder: Path) -> Path:
    """Random weights, 7 million, under the tokenizer of the embedded model."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 4096,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 4, 4]},
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 160,
            "num_heads": 4,
            "intermediate_size": 448,
            "out_hidden_size": 256,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [2],
            "tokens_per_second": 2,
        },
        video_token_id=VIDEO,
        image_token_id=IMAGE,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    load_encoder("builtin:tiny").save(str(folder))
    return folder


def prompt() -> PromptInputs:
    """Words around a video of noise."""
    steps, height, width = GRID
    tokens = steps * height * width // 4
    half = [20] * (WORDS // 2 - 1)
    ids = torch.tensor([[*half, START, *[VIDEO] * tokens, END, *half]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).long() * 2,
        "pixel_values_videos": torch.randn(tokens * 4, 3 * 2 * 14 * 14),
        "video_grid_thw": torch.tensor([GRID]),
        "second_per_grid_ts": torch.tensor([1.0]),
    }


@dataclass(frozen=True)
class Run:
    """What differs between the measured runs."""

    checkpointing: bool = False
    kl_weight: float = 0.0
    lora: LoRA | None = None
    freeze: list[str] = field(default_factory=list)
    precision: str = "32-true"
    dtype: str = "float32"
    max_tokens: int | None = None
    prompts: int = 1
    sft: bool = False


def measure(folder: Path, run: Run) -> tuple[int, Setup]:
    """Two updates by Lightning's Trainer: the peak of allocated bytes, and what the plan is made from."""
    torch.manual_seed(0)
    policy = load_policy(
        str(folder),
        dtype=run.dtype,
        gradient_checkpointing=run.checkpointing,
        freeze=run.freeze,
        attention_form="split",
        max_tokens=run.max_tokens,
        lora=run.lora,
    )
    sampling = Sampling(max_new_tokens=COMPLETION)
    objective = Objective(kl_weight=run.kl_weight)
    module: Any = GRPOModule(policy, num_generations=GROUP, objective=objective, sampling=sampling)
    if run.sft:
        module = SFTModule(policy, sampling=sampling)
    task = GroundingTask()
    inputs = [prompt() for _ in range(run.prompts)]

    samples = [
        Sample(f"{n}", "noise.mp4", "a red square appears", Interval(1.0, 2.0)) for n in range(run.prompts)
    ]
    clip = VideoClip(torch.zeros(2, 3, 28, 28, dtype=torch.uint8), (0, 1), (0.0, 0.5), 2.0, 2)
    batch = Batch(task=task, samples=samples, clips=[clip] * run.prompts, inputs=inputs, lost=[])
    data = DataLoader([batch, batch], batch_size=None)
    trainer = L.Trainer(
        accelerator="cpu",
        precision=run.precision,
        max_steps=2,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    before = sum(one.untyped_storage().nbytes() for one in {*module.parameters(), *module.buffers()})
    before += sum(one.untyped_storage().nbytes() for item in inputs for one in item.values())
    peak = before + allocated(lambda: trainer.fit(module, data))
    expected = 0
    if run.sft:
        expected = len(policy.encoder.completion_ids(task.answer(samples[0])))
    load = Workload(
        prompts=run.prompts,
        vision_tokens=GRID[0] * GRID[1] * GRID[2] // 4,
        text_tokens=WORDS,
        steps=GRID[0],
        group=1 if run.sft else GROUP,
        completion=COMPLETION,
        expected=expected or COMPLETION,
        max_tokens=run.max_tokens,
        samples=not run.sft,
        reference=run.kl_weight > 0,
        eval_prompts=run.prompts,
    )
    weights = {"float32": 4, "bfloat16": 2}[run.dtype]
    precision = Precision(weights, 2 if run.precision == "bf16-mixed" else weights, weights)
    setup = Setup(
        shape_of(policy.model.config),
        weight_sizes_of(policy.model, run.lora.rank if run.lora else 0),
        load,
        precision,
        PlannedSharding(on_gpu=False),
        run.checkpointing,
    )
    return peak, setup


def allocated(job: Any) -> int:
    """The most bytes that were allocated and not yet freed at any time of a job."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        job()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
