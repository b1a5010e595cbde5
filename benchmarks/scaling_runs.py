"""Short runs of GRPOModule on one process or on several, under each strategy: seconds and traffic.

The model is a small Qwen2.5-VL with random weights, the prompts are noise, and a completion never ends before
its limit: all ranks and all runs compute the same amount, one prompt per rank and update.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import DataLoader

from measuring import PRELOADED, use_one_thread
from shapes import NoiseEncoder, Setting, Shape, VisionShape, build_model, noise_prompt
from traffic import Traffic
from vcr1.distributed.sharded import ShardedStrategy
from vcr1.module import GRPOModule
from vcr1.module.phases import PhaseTimer
from vcr1.policy import LoRA, PromptEncoder, Sampling, VideoPolicy
from vcr1.policy.families import FAMILIES
from vcr1.policy.weights.lora import adapt
from vcr1.records import Batch, Interval, Sample
from vcr1.tasks import GroundingTask

SMALL = Shape(
    "small",
    256,
    4,
    4,
    2,
    1024,
    4096,
    False,
    VisionShape(depth=4, hidden=128, heads=4, intermediate=256, full=(3,)),
)
SETTING = Setting(grid=(4, 8, 12), words=20, group=4, length=12)
RANK = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One way to spread a model over ranks.

    Attributes:
        name: what a table calls it.
        strategy: ``ddp`` or ``fsdp``.
        gather: whether a rollout under ``fsdp`` gathers the language model once.
        rank: of adapters; None where all weights are trained.
        precision: of Lightning's trainer; in ``bf16-mixed`` FSDP gathers its weights in bf16.
        checkpointing: gradient checkpointing.
        replicas: groups of ranks that hold the model once each, under ``fsdp``.
    """

    name: str
    strategy: str = "fsdp"
    gather: bool = True
    rank: int | None = None
    precision: Any = "32-true"
    checkpointing: bool = False
    replicas: int = 1


CASES = {
    case.name: case
    for case in (
        Case("ddp", "ddp"),
        Case("fsdp"),
        Case("fsdp, gather=false", gather=False),
        Case("fsdp, LoRA", rank=RANK),
        Case("fsdp, bf16-mixed", precision="bf16-mixed"),
        Case("fsdp, checkpointing", checkpointing=True),
        Case("fsdp, two replicas", replicas=2),
    )
}


class Update(NamedTuple):
    """What one update cost one rank.

    Attributes:
        cpu: CPU seconds.
        wall: seconds.
        bytes: phase -> kind of collective -> bytes sent.
        calls: phase -> kind of collective -> how many.
    """

    cpu: float
    wall: float
    bytes: dict[str, dict[str, int]]
    calls: dict[str, dict[str, int]]


class Phases(PhaseTimer):
    """Tells the counter in which phase the module is."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the block to ``phase``, traffic too."""
        self.traffic.phase = "policy forward" if phase == "policy" else phase
        with super().__call__(phase):
            yield
        self.traffic.phase = "other"


class Watch(L.Callback):
    """Keeps what every update cost, from the beginning of one to the beginning of the next."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.updates: list[Update] = []
        self._begin: tuple[float, float] | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """The update before has ended."""
        now = time.process_time(), time.perf_counter()
        sent, calls = self.traffic.take()
        if self._begin is not None:
            cpu, wall = (end - start for end, start in zip(now, self._begin, strict=True))
            self.updates.append(Update(cpu, wall, nested(sent), nested(calls)))
        self.traffic.phase, self._begin = "other", now

    def on_before_backward(self, *args: Any) -> None:
        """From here on it is the backward pass."""
        self.traffic.phase = "backward"

    def on_after_backward(self, *args: Any) -> None:
        """Clipping and the update."""
        self.traffic.phase = "optimizer"

    def on_train_batch_end(self, *args: Any) -> None:
        """The module's own hook comes after this one, and means metrics over the ranks."""
        self.traffic.phase = "metrics"


def nested(counts: Any) -> dict[str, dict[str, int]]:
    """Phase -> kind -> count, without the zeros."""
    found: dict[str, dict[str, int]] = {}
    for (phase, kind), count in counts.items():
        if count:
            found.setdefault(phase, {})[kind] = count
    return found


def make_module(case: Case) -> GRPOModule:
    """The small model in a module, the same on all ranks."""
    torch.manual_seed(0)
    model = build_model(SMALL, torch.device("cpu"), torch.float32)
    if case.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case.rank is not None:
        adapt(model, LoRA(rank=case.rank), FAMILIES["qwen2_5_vl"])
    policy = VideoPolicy(model, cast(PromptEncoder, NoiseEncoder()), attention_form="split")
    sampling = Sampling(max_new_tokens=SETTING.length)
    return GRPOModule(policy, num_generations=SETTING.group, sampling=sampling)


def make_trainer(case: Case, world: int, updates: int, watch: Watch) -> L.Trainer:
    """A trainer of so many updates, one more than are counted."""
    strategy: Any = "auto"
    if world > 1 and case.strategy == "fsdp":
        strategy = ShardedStrategy(gather=case.gather, replicas=case.replicas)
    elif world > 1:
        strategy = case.strategy
    return L.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=strategy,
        precision=case.precision,
        max_steps=updates + 1,
        max_epochs=-1,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[watch],
    )


def batches(count: int) -> Any:
    """So many batches of one prompt, which the ranks have alike."""
    sample = Sample("noise", "noise.mp4", "something happens", Interval(1.0, 2.0), 4.0)
    inputs = noise_prompt(SMALL, SETTING, torch.device("cpu"), torch.float32)
    task: Any = GroundingTask()
    found: Any = [Batch(task, [sample], [], [inputs], []) for _ in range(count)]
    return DataLoader(found, batch_size=None)


def run_case(case: Case, world: int, updates: int, count: bool) -> list[Update]:
    """Updates of one case on this rank; the traffic is counted, or else the seconds stand."""
    traffic = Traffic()
    watch, module = Watch(traffic), make_module(case)
    module.phase = Phases(traffic)
    trainer = make_trainer(case, world, updates, watch)
    if not count:
        trainer.fit(module, batches(updates + 1))
    else:
        with traffic:
            trainer.fit(module, batches(updates + 1))
    return watch.updates


def _rank(rank: int, world: int, port: int, jobs: list[tuple[Case, int, bool]], folder: str) -> None:
    """One process of a run: its updates, job by job, in a file."""
    use_one_thread()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ours = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    if world > 1:
        ours |= {"WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    found = []
    for case, updates, count in jobs:
        os.environ |= ours  # Lightning clears them after a run
        found.append(run_case(case, world, updates, count))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def run_ranks(world: int, jobs: list[tuple[Case, int, bool]]) -> list[list[list[Update]]]:
    """Run jobs, one after the other, in so many fresh processes that work together.

    Args:
        world: ranks.
        jobs: case, updates, and whether to count their traffic.

    Returns:
        Job -> rank -> its updates.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOADED, "lightning", "vcr1.module"])
    with tempfile.TemporaryDirectory() as folder:
        # Ends the other ranks where one fails: they would wait for it.
        start_processes(_rank, (world, port, jobs, folder), world, start_method="forkserver")
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    return [[[Update(*update) for update in rank[job]] for rank in ranks] for job in range(len(jobs))]
