"""A step of GRPO on one device, with a shared and with a repeated prompt, phase by phase.

Both forms train the same weights: all of them, or adapters over a frozen base. They run under the autocast
of the shipped trainer (``bf16-mixed``) and with gradient checkpointing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from learner import LEARNING_RATE, Learner
from repeated import generate, repeat, repeated_logprobs
from shapes import NoiseEncoder, Setting, Shape, build_model, noise_prompt
from vcr1.policy import LoRA, PromptEncoder, Sampling, VideoPolicy, reference_of
from vcr1.policy.families import FAMILIES
from vcr1.policy.weights.lora import adapt, adapters_off
from vcr1.records import PromptInputs

PHASES = ("vision", "rollout", "reference", "policy", "optimizer")
TRAINING = ("vision", "reference", "policy")
"""The training part of a step: what is no rollout and does not move the weights."""


@dataclass(slots=True)
class Clock:
    """What the phases of one step cost on a device.

    Attributes:
        device: where the step runs.
        seconds: wall seconds by phase; the device has finished at its borders.
        peak: bytes that tensors took on a GPU at most, weights included; 0 on a CPU.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    peak: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge what runs inside."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        begin = time.perf_counter()
        yield
        if on_gpu:
            torch.cuda.synchronize(self.device)
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(self.device))
        self.seconds[name] += time.perf_counter() - begin

    def total(self, phases: tuple[str, ...] = PHASES) -> float:
        """Seconds of some phases together."""
        return sum(self.seconds[name] for name in phases)


def make_learner(shape: Shape, setting: Setting, rank: int | None, device: torch.device) -> Learner:
    """A model in bf16 with its reference and its optimizer.

    Args:
        shape: of the model.
        setting: how long its completions are, and how many.
        rank: of adapters on the language model; None to train all weights.
        device: where all of it is.
    """
    model = build_model(shape, device, torch.bfloat16)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if rank is not None:
        adapt(model, LoRA(rank=rank), FAMILIES["qwen2_5_vl"])
    # A policy asks its encoder for three things, which these models have no processor for.
    policy = VideoPolicy(model, cast(PromptEncoder, NoiseEncoder())).train()
    reference = reference_of(policy)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE)
    return Learner(policy, reference, optimizer, setting.group, setting.length)


def shared_step(learner: Learner, inputs: PromptInputs, clock: Clock, compile: bool | str = "auto") -> Tensor:
    """A step of this package, in the order of GRPOModule; returns the sampled ids ``[G, C]``."""
    policy = learner.model
    with clock.phase("vision"):
        features = policy.vision([inputs])
    with clock.phase("rollout"):
        settings = Sampling(max_new_tokens=learner.length, compile=compile)
        groups = policy.rollout([inputs], features, learner.group, settings)
    with clock.phase("reference"), torch.no_grad():
        # A tower that is not trained serves both.
        theirs = features if policy.vision_is_frozen else learner.reference.vision(groups.inputs)
        reference = learner.reference.logprobs(groups, theirs).logprobs[0]
    with clock.phase("policy"):
        learner.backward(policy.logprobs(groups, features).logprobs[0], reference)
    del features, theirs  # and the vision tower's graph
    with clock.phase("optimizer"):
        learner.update()
    ids: Tensor = groups.completion_ids[0]
    return ids


def repeated_step(learner: Learner, inputs: PromptInputs, clock: Clock) -> Tensor:
    """The same over a prompt with its pixels once for every completion, by transformers alone."""
    policy = learner.model
    batch = repeat(inputs, learner.group)
    with clock.phase("rollout"), policy.evaluating():  # in training, checkpointing drops the cache
        ids = generate(policy.model, batch, learner.length, NoiseEncoder().never_sampled(0))
    with clock.phase("reference"), torch.no_grad():
        model, mode = _reference(learner)
        with mode, policy.evaluating():
            reference = repeated_logprobs(model, batch, ids)
    with clock.phase("policy"):
        learner.backward(repeated_logprobs(policy.model, batch, ids), reference)
    with clock.phase("optimizer"):
        learner.update()
    return ids


def _reference(learner: Learner) -> tuple[Any, AbstractContextManager[None]]:
    """The Hugging Face model behind a reference, and how it is entered."""
    if isinstance(learner.reference, VideoPolicy):
        return learner.reference.model, nullcontext()
    return learner.model.model, adapters_off(learner.model)


STEPS: dict[str, Callable[..., Tensor]] = {
    "shared": shared_step,
    "shared, plain decode steps": partial(shared_step, compile=False),
    "repeated": repeated_step,
}


def measure(
    shape: Shape, setting: Setting, rank: int | None, device: torch.device, repeats: int
) -> dict[str, list[Clock]]:
    """Steps of both forms in turns, after one of each that is not counted.

    Returns:
        Form -> its clocks; none where the form does not fit the device's memory.
    """
    learner = make_learner(shape, setting, rank, device)
    inputs = noise_prompt(shape, setting, device, torch.bfloat16)
    clocks: dict[str, list[Clock]] = {form: [] for form in STEPS}
    too_large: set[str] = set()
    for number in range(repeats + 1):
        for form in [form for form in STEPS if form not in too_large]:
            clock = Clock(device)
            try:
                with torch.autocast(device.type, torch.bfloat16):
                    STEPS[form](learner, inputs, clock)
            except torch.OutOfMemoryError:
                too_large.add(form)
            else:
                clocks[form] += [clock] if number else []
            if form in too_large:  # outside the handler, whose traceback holds the step's tensors
                learner.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
    return clocks
