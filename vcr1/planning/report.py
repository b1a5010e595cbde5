"""The plan of a run, and how it is printed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from vcr1.errors import UserError
from vcr1.planning.advice import Advice, advise
from vcr1.planning.flops import work
from vcr1.planning.memory import MOMENTS, Memory, Setup, memory
from vcr1.planning.settings import expected_of, setup_of

log = logging.getLogger(__name__)

GB = 10**9
RULES = {
    "largest": "at the largest position so far + 1",
    "frame": "after the frame's larger side (transformers 5.3 to 5.23)",
}
"""The rules of ``model.text_after_video`` in words."""
COMMON_GPU = 80.0
"""GB of a GPU that a plan is held against where there is none and ``plan.gpu_gb`` names none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what a run will need.

    Attributes:
        setup: the sizes that it follows from.
        memory: bytes on each GPU.
        work: operations of an update on each GPU, by phase.
        limit: bytes that a run may use on a GPU; None on a CPU.
        device: what the limit is that of.
        advice: what to change where it does not fit.
    """

    setup: Setup
    memory: Memory
    work: dict[str, float]
    limit: int | None
    device: str
    advice: list[Advice]

    @property
    def fits(self) -> bool:
        """Return whether the run stays under its limit."""
        return self.limit is None or self.memory.peak <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as it is written to ``plan.json``; bytes and operations."""
        weights, load = self.setup.weights, self.setup.load
        return {
            "fits": self.fits,
            "peak": self.memory.peak,
            "limit": self.limit,
            "device": self.device,
            "parameters": {
                "total": weights.total,
                "trained": weights.trained + weights.adapters,
                "vision": weights.vision,
                "adapters": weights.adapters,
            },
            "text_after_video": self.setup.shape.text_after_video,
            "tokens": {"vision": load.vision_tokens, "text": load.text_tokens, "completion": load.answer},
            "memory": {name: dict(moments) for name, moments in self.memory.items.items()},
            "work": self.work,
            "advice": [{"overrides": list(one.overrides), "peak": one.peak} for one in self.advice],
        }


def make_plan(cfg: DictConfig) -> Plan:
    """Return the plan of a composed config; loads no weights.

    Raises:
        UserError: the model's configuration cannot be had, or a setting cannot be.
    """
    expected = expected_of(cfg)
    on_gpu = str(cfg.trainer.accelerator) != "cpu"
    size, device = gpu_memory(expected.gpu_gb)
    limit = round((size - expected.reserve_gb) * GB) if on_gpu else None
    return plan_of(setup_of(cfg), limit, device if on_gpu else "CPU")


def announce_plan(cfg: DictConfig) -> None:
    """Print the plan of a run that is about to start, once, where ``plan.show`` says so.

    Raises:
        UserError: a field of ``plan`` that does not exist or cannot be.
    """
    if not expected_of(cfg).show or getattr(rank_zero_only, "rank", 0) != 0:
        return
    try:
        show_plan(make_plan(cfg))
    except UserError as error:  # such as another family: no reason not to train it
        log.warning("no plan: %s", error)


def plan_of(setup: Setup, limit: int | None, device: str = "GPU") -> Plan:
    """Return the plan of a setup, held against a limit in bytes."""
    advice = [] if limit is None else advise(setup, limit)
    return Plan(setup, memory(setup), work(setup), limit, device, advice)


def gpu_memory(stated: float | None) -> tuple[float, str]:
    """Return GB of a GPU and what it is called: the stated size, this machine's, or a common one."""
    if stated is not None:
        return float(stated), f"a GPU of {stated:g} GB"
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return found.total_memory / GB, f"{found.name} with {found.total_memory / GB:.0f} GB"
    return COMMON_GPU, f"a GPU of {COMMON_GPU:g} GB (plan.gpu_gb=... says otherwise)"


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan: a table of GB on each GPU, the verdict, and what to change."""
    console = console or Console(markup=False, highlight=False)
    table = Table("GB, each process" if plan.limit is None else "GB, each GPU")
    for moment in MOMENTS:
        table.add_column(moment, justify="right")
    for name, moments in plan.memory.items.items():
        if any(moments.values()):
            table.add_row(name, *(gigabytes(moments.get(moment, 0)) for moment in MOMENTS))
    table.add_section()
    table.add_row("all", *(gigabytes(plan.memory.at(moment)) for moment in MOMENTS))
    table.add_row("TFLOP, update", *(tera(plan.work.get(moment, 0.0)) for moment in MOMENTS))
    console.print(_title(plan), soft_wrap=True)
    console.print(table)
    console.print(verdict(plan), soft_wrap=True)


def _title(plan: Plan) -> str:
    """Return the sizes that the plan follows from."""
    weights, load, sharding = plan.setup.weights, plan.setup.load, plan.setup.sharding
    trained = weights.trained + weights.adapters
    ranks = f"{sharding.ranks} rank{'s' * (sharding.ranks > 1)}" + (
        f" in shards of {sharding.shards}" if sharding.shards > 1 else ""
    )
    group = (
        f"{load.group} x {load.answer} tokens behind " if load.samples else f"{load.answer} tokens behind "
    )
    return (
        f"{count(weights.total + weights.adapters)} parameters, {count(trained)} trained; {ranks}; "
        f"{load.prompts} x ({group}{load.vision_tokens} of video and {load.text_tokens} of text); "
        f"text behind a video: {RULES[plan.setup.shape.text_after_video]}"
    )


def verdict(plan: Plan) -> str:
    """Return whether the run fits, and what to change where it does not."""
    peak = f"Peak {plan.memory.peak / GB:.3g} GB, {tera(sum(plan.work.values()))} TFLOP an update"
    if plan.limit is None:
        return f"{peak}, in a process on the CPU."
    if plan.fits:
        return f"{peak}: fits {plan.device}."
    lines = [f"{peak}: does not fit {plan.device}, of which {plan.limit / GB:.3g} GB can be used."]
    for advice in plan.advice:
        start = "fits with" if advice.fits else "comes closest with"
        lines.append(f"  {advice.peak / GB:.3g} GB, {start}: {' '.join(advice.overrides)}")
    return "\n".join(lines)


def gigabytes(size: int) -> str:
    """Return bytes in GB to three digits; nothing for none."""
    return f"{size / GB:.3g}" if size else ""


def tera(operations: float) -> str:
    """Return operations in units of 10^12; nothing for none."""
    units = operations / 1e12
    return "" if not operations else f"{units:,.0f}" if units >= 100 else f"{units:.3g}"


def count(parameters: int) -> str:
    """Return a number of parameters, such as 8.29 B."""
    for unit, letter in ((10**9, "B"), (10**6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {letter}"
    return str(parameters)
