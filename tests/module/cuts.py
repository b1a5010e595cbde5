"""One update, cut in many ways: what the tests of its arithmetic run, in one process or on two ranks.

``python cuts.py CLIPS RESULT`` in each of two processes, which know from the environment who they are.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from vcr1.config.building import build
from vcr1.config.entry import load_config
from vcr1.data import LoaderSettings, TaskDataModule
from vcr1.module import PolicyModule
from vcr1.policy import Sampling, VideoPolicy, load_policy
from vcr1.policy.generation.groups import completed_groups
from vcr1.readers import Annotations
from vcr1.records import Interval, PromptInputs, RolloutGroups, Sample
from vcr1.tasks import GroundingTask
from vcr1.video import ClipSpec, FrameBudget, ShapeEvent, write_clip

ALGORITHMS = tuple(sorted(path.stem for path in Path("conf/algorithm").glob("*.yaml")))
GROUP, LIMIT = 3, 24
COLORS = ("red", "blue", "green", "yellow")
THOUGHTS = ("", "it moves ", "the square is there and then it is gone ")


def samples(folder: Path) -> list[Sample]:
    """Four questions about four clips; the answers that supervision shows differ in length."""
    found = []
    for number, color in enumerate(COLORS):
        path, seconds = folder / f"{color}.mp4", 4.0 + number
        if not path.exists():
            event = ShapeEvent(color, "square", 1.0, 2.5, x=40, y=60, vx=9, vy=3, radius=20)
            write_clip(ClipSpec(seconds, (30, 40, 50), number, (event,)), path)
        extra = {"rationale": "so " * (1 + 3 * number)}
        target = Interval(1.0, 2.5)
        found.append(Sample(color, str(path), f"the {color} square appears", target, seconds, extra=extra))
    return found


class SetAnswers:
    """An engine whose completions depend on the prompt alone: of different lengths, rewards and ends."""

    def __init__(self, policy: VideoPolicy) -> None:
        self.policy = policy
        self.logprob = 0.0

    def rollout(
        self,
        inputs: list[PromptInputs],
        features: list[Tensor | None],
        num_generations: int,
        sampling: Sampling,
        seeds: list[int] | None = None,
    ) -> RolloutGroups:
        encoder, rows = self.policy.encoder, []
        for item in inputs:
            place = int(item["input_ids"].sum())
            for number in range(num_generations):
                end = 1.5 + (place + number) % 5 / 2
                thought = THOUGHTS[(place + number) % 3]
                text = f"<think>{thought}</think><answer>1.0 to {end}</answer>"
                rows.append(torch.tensor(encoder.completion_ids(text)[:LIMIT]))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=encoder.padding)
        return completed_groups(
            encoder, inputs, num_generations, ids, torch.full(ids.shape, self.logprob).double()
        )


class Gradients(L.Callback):
    """Keeps the gradient and the loss of every update, as whoever looks at them sees them."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.policy.parameters() if p.grad is not None]
        self.gradients.append(torch.cat([gradient.flatten() for gradient in gradients]))
        self.losses.append(pl_module.update_log.of_update["loss"])


def module_of(algorithm: str, tokens: int | None, more: list[str]) -> PolicyModule:
    """The tiny model, a little away from its reference, and steps that are as large as the gradients."""
    policy = load_policy("builtin:tiny", dtype="float64", max_tokens=tokens)
    group = [] if algorithm == "sft" else [f"algorithm.num_generations={GROUP}"]
    overrides = [f"algorithm={algorithm}", f"rollout.max_new_tokens={LIMIT}", *group, *more]
    engine = {} if algorithm == "sft" else {"engine": SetAnswers(policy)}
    module: PolicyModule = build(load_config(overrides).algorithm)(policy=policy, **engine)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=noise)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    module.configure_optimizers = lambda: torch.optim.SGD(trained, lr=1e-2)  # type: ignore[method-assign]
    return module


def gradients(
    clips: Path,
    algorithm: str,
    batch_size: int,
    accumulate: int,
    tokens: int | None = None,
    more: tuple[str, ...] = (),
    **settings: Any,
) -> Gradients:
    """Train one epoch of four samples: one update, and as many more as the algorithm makes of a rollout."""
    watch = Gradients()
    train_on(module_of(algorithm, tokens, list(more)), clips, batch_size, accumulate, [watch], **settings)
    return watch


def train_on(
    module: PolicyModule,
    clips: Path,
    batch_size: int,
    accumulate: int,
    callbacks: list[L.Callback],
    **settings: Any,
) -> None:
    """Train an epoch, two updates at most."""
    loader = LoaderSettings(batch_size=batch_size, num_workers=0, shuffle=False)
    budget = FrameBudget(min_pixels=28 * 28, total_pixels=28 * 28)
    encoder = module.policy.encoder
    data = TaskDataModule(
        GroundingTask(),
        {"train": Annotations("train", samples(clips))},
        encoder,
        encoder.grid,
        budget,
        loader,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        max_steps=2,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **settings,
    )
    trainer.fit(module, data)


def poisoned(clips: Path) -> tuple[bool, dict[str, float]]:
    """Two updates, in both of which the second rank samples log-probs that are no numbers."""
    module: Any = module_of("grpo", None, [])
    module.draft.engine.logprob = float("nan") if os.environ["LOCAL_RANK"] == "1" else 0.0
    before = [parameter.clone() for parameter in module.policy.parameters()]
    train_on(module, clips, 1, 1, [], devices=2, strategy="ddp_find_unused_parameters_true")
    same = all(torch.equal(a, b) for a, b in zip(before, module.policy.parameters(), strict=True))
    return same, dict(module.update_log.totals)


def main(clips: Path, result: Path) -> None:
    """Two ranks, each with a quarter of the update at a time."""
    torch.set_num_threads(1)
    found = {}
    for algorithm in ALGORITHMS:
        watch = gradients(clips, algorithm, 1, 2, devices=2, strategy="ddp_find_unused_parameters_true")
        found[algorithm] = (watch.gradients, watch.losses)
    found["one rank has numbers that are not finite"] = poisoned(clips)
    if os.environ["LOCAL_RANK"] == "0":
        torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
