"""A whole step of this package against one of TRL's GRPOTrainer: same weights, image, group and lengths.

An image, since TRL 1.16 trains on a video prompt without its video: it leaves the pixels out of the log-prob
forward. To this package the image is a video of two equal frames, which is what Qwen2.5-VL makes of an image.
The two take turns in one process; the first step of each is not counted, but shows that both find the same
log-probs for TRL's completions. Usage: ``python benchmarks/trl_step.py [--out benchmarks/RESULTS.md]``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import TrainerCallback

from learner import FULL, TOY, Learner, Size, make_model, make_processor
from measuring import Meter, Spread, in_fresh_process, machine
from shared import shared_learner, shared_step
from vcr1.errors import UserError
from vcr1.records import PromptInputs, RolloutGroups
from writing import publish, table

SIZES = [(28, 32), (60, 32)]
"""Tokens of the images, down and across: prompts of about 1,000 and 2,000 tokens."""
TEXT = "describe what happens in this clip step by step and answer. " * 2
GROUP, LENGTH = 8, 128
TARGETS = {2: "6"}
SAME = 1e-3
"""Nats by which two log-probs of a token may differ in float32 and still be called the same."""


@dataclass(slots=True)
class Turns(TrainerCallback):
    """Measures TRL's steps, and lets this package take one after each.

    Attributes:
        learner: this package's, with the weights that TRL begins with.
        processor: of both.
        image: of the prompt.
        trl: what each of TRL's steps cost.
        ours: what each of this package's cost.
        scored: what TRL's log-prob forward with a gradient got and found, of the last step.
        difference: of the log-probs of the two in the first step, nats, at most.
        prompt: tokens of the prompt.
    """

    learner: Learner
    processor: Any
    image: Image.Image
    trl: list[Meter] = field(default_factory=list)
    ours: list[Meter] = field(default_factory=list)
    scored: dict[str, Tensor] = field(default_factory=dict)
    difference: float = 0.0
    prompt: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """TRL begins."""
        self.trl.append(Meter())
        self._running.enter_context(self.trl[-1].phase("step"))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """TRL has moved its weights; our turn."""
        self._running.close()
        if not self.ours:
            self.compare()
        meter = Meter()
        with meter.phase("processor"):
            inputs = as_video(self.processor, self.image)
        shared_step(self.learner, inputs, meter)
        self.ours.append(meter)

    @torch.no_grad()
    def compare(self) -> None:
        """See that TRL's forward got the pixels, and that both mean the same by a log-prob.

        Raises:
            UserError: they do not, so that nothing can be compared.
        """
        inputs = as_video(self.processor, self.image)
        self.prompt = inputs["input_ids"].shape[1]
        found = self.scored["logprobs"]
        patches = len(self.scored.get("pixel_values", ()))
        if patches != len(found) * len(inputs["pixel_values_videos"]):
            raise UserError(f"TRL's log-prob forward got {patches} patches: not the image of every row")
        groups = groups_of(inputs, self.scored["input_ids"][:, self.prompt :])
        own = self.learner.model.logprobs(groups, self.learner.model.vision([inputs])).logprobs[0]
        self.difference = float((own - found).abs().max())
        if not self.difference < SAME:
            raise UserError(f"TRL and vcr1 differ by {self.difference:.1e} nats on the same completions")


def noise(tokens: tuple[int, int]) -> Image.Image:
    """An image of so many tokens down and across, at 28 pixels a side each."""
    shape = (tokens[0] * 28, tokens[1] * 28, 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))


def groups_of(inputs: PromptInputs, ids: Tensor) -> RolloutGroups:
    """Completions ``[G, C]`` of one prompt, none of them ended early."""
    return RolloutGroups(
        inputs=[inputs],
        completion_ids=ids[None],
        completion_mask=torch.ones_like(ids[None], dtype=torch.bool),
        logprobs=torch.zeros(1, *ids.shape),
        truncated=torch.ones(1, len(ids), dtype=torch.bool),
        texts=[[""] * len(ids)],
    )


def as_video(processor: Any, image: Image.Image) -> PromptInputs:
    """The prompt about an image, as one about a video of two frames that are both the image."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": TEXT}]
    found = processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = found["input_ids"]
    pictures = ids == processor.image_token_id
    return {
        "input_ids": ids.masked_fill(pictures, processor.video_token_id),
        "attention_mask": found["attention_mask"],
        "mm_token_type_ids": pictures.long() * 2,
        "pixel_values_videos": found["pixel_values"],
        "video_grid_thw": found["image_grid_thw"],
        "second_per_grid_ts": torch.tensor([1.0]),
    }


def make_trainer(
    folder: str, processor: Any, image: Image.Image, never: list[int], steps: int, sizes: Any
) -> Any:
    """TRL's trainer with the settings of this package's step: GRPO, beta 0.04, AdamW, no dropout."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    group, length = sizes
    rows = group * steps
    data = Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": TEXT}]] * rows, "image": [image] * rows}
    )
    config = GRPOConfig(
        output_dir=f"{folder}/trl",
        per_device_train_batch_size=group,
        num_generations=group,
        gradient_accumulation_steps=1,
        max_completion_length=length,
        beta=0.04,
        max_steps=steps,
        learning_rate=1e-6,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        generation_kwargs={"min_new_tokens": length, "suppress_tokens": never},
        max_grad_norm=1.0,
        loss_type="grpo",
    )

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(number) for number in range(len(completions))]

    return GRPOTrainer(
        model=folder, reward_funcs=reward, args=config, train_dataset=data, processing_class=processor
    )


def watch(trainer: Any, turns: Turns) -> None:
    """Keep what TRL's log-prob forward with a gradient gets and returns."""
    inner = trainer._get_per_token_logps_and_entropies

    def outer(model: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = inner(model, input_ids, *args, **kwargs)
        if torch.is_grad_enabled():
            turns.scored = {"input_ids": input_ids, "logprobs": found[0].detach()}
            if kwargs.get("pixel_values") is not None:
                turns.scored["pixel_values"] = kwargs["pixel_values"]
        return found

    trainer._get_per_token_logps_and_entropies = outer


def measure(size: Size, tokens: tuple[int, int], sizes: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Steps of both over one image prompt, in turns.

    Args:
        size: of the model.
        tokens: of the image, down and across.
        sizes: completions of a prompt, and tokens of each.
        repeats: steps of each that count.

    Returns:
        ``prompt`` (tokens), ``difference`` (nats), and ``trl`` and ``ours``, a meter for each step.
    """
    processor = make_processor(size.vocabulary)
    model = make_model(processor, size)
    image = noise(tokens)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        turns = Turns(shared_learner(model, processor, *sizes), processor, image)
        never = turns.learner.model.encoder.never_sampled(size.vocabulary)
        trainer = make_trainer(folder, processor, image, never, repeats + 1, sizes)
        watch(trainer, turns)
        trainer.add_callback(turns)
        trainer.train()
    return {
        "prompt": turns.prompt,
        "difference": turns.difference,
        "trl": turns.trl[1:],
        "ours": turns.ours[1:],
    }


def report(found: list[dict[str, Any]], sizes: tuple[int, int]) -> str:
    """The section of the results."""
    group, length = sizes
    rows = []
    for one in found:
        prompt = one["prompt"]
        target = TARGETS.get(round(prompt / 1000), "")
        for what, spec in (("CPU seconds", ".2f"), ("peak MiB", ".0f")):
            theirs, ours = (
                [sum(m.cpu.values()) if what == "CPU seconds" else max(m.peak.values()) for m in one[name]]
                for name in ("trl", "ours")
            )
            ratio = Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])
            limit = (prompt + length) / (prompt / group + length)
            rows.append(
                [
                    f"{prompt:,}",
                    what,
                    *(format(Spread.of(values), spec) for values in (theirs, ours)),
                    format(ratio, ".2f"),
                    f"{limit:.2f}",
                    f"≥ {target}" if target and what == "CPU seconds" else "",
                ]
            )
    header = ["prompt tokens", "whole step", "TRL", "vcr1", "TRL / vcr1", "(P + C) / (P/G + C)", "target"]
    largest = max(one["difference"] for one in found)
    return "\n".join(
        [
            machine("trl"),
            "",
            f"G = {group} completions of C = {length} tokens, float32, image prompt. Median "
            f"(smallest–largest) of {len(found[0]['trl'])} steps of each, in turns, after one that is not "
            f"counted. On TRL's completions of that first step the two differ by {largest:.0e} nats at most, "
            f"and TRL's log-prob forward had the pixels of all {group} rows.",
            "",
            table(header, rows),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the section where a file is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="a RESULTS.md, whose section `trl` is replaced")
    parser.add_argument("--repeats", type=int, default=3, help="steps of each that count")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes, to see that it works")
    chosen = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    size, images, sizes = (TOY, [(2, 3)], (2, 3)) if chosen.toy else (FULL, SIZES, (GROUP, LENGTH))
    try:
        found = [in_fresh_process(measure, size, tokens, sizes, chosen.repeats) for tokens in images]
        publish("trl", report(found, sizes), chosen.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
