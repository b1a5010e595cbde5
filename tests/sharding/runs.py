"""What the tests of sharded training compare: the same short runs on 1 process and on 2.

``python runs.py CLIPS RESULTS`` in each process; who it is, the environment says, as under torchrun.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import DataLoader

from vcr1.distributed.sharded import ShardedStrategy
from vcr1.module import GRPOModule, PolicyModule, SFTModule
from vcr1.objectives import Objective
from vcr1.policy import LoRA, Sampling, VideoPolicy, load_policy
from vcr1.records import Batch, Interval, LostSample, Prompt, Sample
from vcr1.tasks import GroundingTask
from vcr1.video import ClipSpec, FrameBudget, PatchGrid, ShapeEvent, read_clip, write_clip

RANKS, STEPS = 2, 3
COLORS = ("red", "blue", "green", "yellow")


def samples(folder: Path) -> list[Sample]:
    """Four clips of different lengths, one event in each."""
    found = []
    for number, color in enumerate(COLORS):
        path = folder / f"{color}.mp4"
        seconds = 4.0 + number
        if not path.exists():
            event = ShapeEvent(color, "square", 1.0, 2.5, x=40, y=60, vx=9, vy=3, radius=20)
            write_clip(ClipSpec(seconds, (30, 40, 50), number, (event,)), path)
        found.append(Sample(color, str(path), f"the {color} square appears", Interval(1.0, 2.5), seconds))
    return found


def batches(folder: Path, policy: VideoPolicy) -> list[Batch]:
    """Of three steps, for two ranks each: 2 and 1 samples; 1 and none, its video is lost; 1 and 1 text."""
    task, encoder = GroundingTask(), policy.encoder
    red, blue, green, yellow = samples(folder)

    def batch(*chosen: Sample, video: bool = True) -> Batch:
        budget = FrameBudget(min_pixels=784, total_pixels=784)
        clips = [read_clip(sample.video, budget, PatchGrid()) for sample in chosen]
        inputs = [
            encoder(task.prompt(sample), clip) if video else encoder(Prompt("When?"), None)
            for sample, clip in zip(chosen, clips, strict=True)
        ]
        return Batch(task, list(chosen), [clip.without_frames() for clip in clips], inputs, [])

    lost = Batch(task, [], [], [], [LostSample("lost", "nothing there", None)])
    return [batch(red, blue), batch(green), batch(yellow), lost, batch(blue), batch(red, video=False)]


class AnyNumber(GRPOModule):
    """Draws the same for a micro-batch on a rank, whether ranks are processes or take turns in one."""

    def seeds(self, batch_idx: int, prompts: int, attempt: int = 0) -> list[int]:
        turn = self.global_rank if self.trainer.world_size == RANKS else batch_idx % RANKS
        return [1000 * self.trainer.global_step + 100 * turn + prompt for prompt in range(prompts)]


class Losses(L.Callback):
    """Keeps the loss of every update, the mean over the ranks."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.update_log.update:
            self.values[pl_module.update_log.update] = float(trainer.callback_metrics["train/loss"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_batch_start(trainer, pl_module)


def descent(self: PolicyModule) -> torch.optim.Optimizer:
    """Steps as large as the gradients: an Adam would make as much of rounding as of a gradient."""
    return torch.optim.SGD([p for p in self.policy.parameters() if p.requires_grad], lr=0.05, momentum=0.5)


def module_of(case: dict[str, Any]) -> PolicyModule:
    """The tiny model in a module, the same in every process."""
    torch.manual_seed(0)
    policy = load_policy("builtin:tiny", **case.get("model", {}))
    sampling = Sampling(max_new_tokens=24)
    if case.get("supervised"):
        module: PolicyModule = SFTModule(policy, sampling=sampling)
    else:
        settings = {"num_generations": 3} | case.get("algorithm", {})
        module = AnyNumber(policy, sampling=sampling, **settings)
    module.configure_optimizers = descent.__get__(module)  # type: ignore[method-assign]
    return module


def trainer_of(case: dict[str, Any], steps: int, world: int, **settings: Any) -> L.Trainer:
    """Two ranks that share the weights, or one process that takes two micro-batches for an update."""
    sharded = world == RANKS or case.get("sharded")
    return L.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=ShardedStrategy(**case.get("strategy", {})) if sharded else "auto",
        max_steps=steps,
        max_epochs=-1,
        use_distributed_sampler=False,
        accumulate_grad_batches=RANKS // world,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )


def loader(batches: list[Batch], world: int) -> Any:
    own: Any = batches[int(os.environ.get("LOCAL_RANK", "0")) :: world]
    return DataLoader(own, batch_size=None)


def run(name: str, clips: Path, results: Path, world: int) -> None:
    """An evaluation, as before every training, and three updates."""
    case, losses = CASES[name], Losses()
    module, trainer = module_of(case), trainer_of(case, STEPS, world, callbacks=[losses])
    todo = batches(clips, module.policy)
    trainer.validate(module, loader(todo, world), verbose=False)
    trainer.fit(module, loader(todo, world))
    if world == RANKS:
        module.policy.save(results / f"{name}-folder")
    keep(module, results / f"{name}-{world}.pt", trainer, losses)


def interrupt(clips: Path, results: Path, world: int) -> None:
    """Two updates, a checkpoint."""
    module, trainer = module_of({}), trainer_of({}, STEPS - 1, world)
    trainer.fit(module, loader(batches(clips, module.policy)[:-RANKS], world))
    trainer.fit_loop.epoch_loop.batch_progress.reset_on_run()  # what is left is an epoch of its own
    trainer.save_checkpoint(results / "checkpoint")


def resume(clips: Path, results: Path, world: int) -> None:
    """The third update, with as many ranks as there are now."""
    losses = Losses()
    case = {"sharded": True}
    module, trainer = module_of(case), trainer_of(case, STEPS, world, callbacks=[losses])
    # Both models are used, and so gathered, before the checkpoint is read.
    trainer.validate(module, loader(batches(clips, module.policy), world), verbose=False)
    trainer.fit(
        module, loader(batches(clips, module.policy)[-RANKS:], world), ckpt_path=results / "checkpoint"
    )
    keep(module, results / f"resumed-{world}.pt", trainer, losses)


def keep(module: PolicyModule, path: Path, trainer: L.Trainer, losses: Losses) -> None:
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Tensor] = get_model_state_dict(module.policy.model, options=options)
    judged = {name: sorted(found) for name, found in module.judgements.items()}
    if trainer.is_global_zero:
        torch.save({"weights": weights, "losses": losses.values, "judged": judged}, path)


CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "adapters": {"model": {"lora": LoRA(rank=4, vision=True)}},
    # No rank has all weights at any time, so that all decode as long as one does, and sample again together.
    "lockstep": {"strategy": {"gather": False}, "algorithm": {"max_resamples": 2}},
    # Ranks with other numbers of passes, recomputed as a whole and block by block.
    "recomputed": {"model": {"gradient_checkpointing": True, "max_tokens": 90}},
    "offloaded": {"model": {"freeze": ["vision"]}, "strategy": {"offload": True}},
    "replicated": {"algorithm": {"objective": Objective(kl_weight=0.0)}, "strategy": {"replicas": 2}},
    "supervised": {"supervised": True},
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    environment = dict(os.environ)  # which Lightning clears after a run
    places = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["WORLD_SIZE"])
    for job in sys.argv[3:]:
        os.environ |= environment
        if job in CASES:
            run(job, *places)
        else:
            {"interrupt": interrupt, "resume": resume}[job](*places)
